#include "ops/packed_weight.h"

#include <torch/csrc/stable/ops.h>

#include <type_traits>
#include <utility>

#include "core/fused/convolution.h"
#include "ops/constants.h"
#include "ops/dispatch.h"
#include "ops/layout.h"

namespace ghostsr::ops {
namespace {

fused::WeightSize size_of(const Tensor& weight, int64_t groups) {
  return {.out = weight.size(0) / groups, .in = weight.size(1), .groups = groups, .kernel = weight.size(2)};
}

template <class T>
Tensor pack(const fused::WeightOf<T>& weight, const Tensor& like) {
  Tensor packed = empty_vector({static_cast<int64_t>(fused::packed_size<T>(weight.size))}, like);
  if constexpr (std::is_same_v<T, BFloat16>) {
    fused::pack(weight, mutable_data_of<T>(packed));
  } else {
    fused::pack(weight, mutable_data_of<T>(packed),
                [](int64_t count, FunctionRef<void(int64_t, int64_t)> body) {
                  torch::stable::parallel_for(0, count, 1, body);
                });
  }
  return packed;
}

}  // namespace

Fingerprint fingerprint_of(const Tensor& weight, int64_t groups, int64_t shuffle) {
  Fingerprint print;
  print.add(groups);
  print.add(shuffle);
  add_constant(print, weight);
  return print;
}

std::shared_ptr<const PackedWeight> pack_weight(const Tensor& weight, int64_t groups, int64_t shuffle) {
  // The fingerprint must be that of the values packed, so both come from one copy, which keeps the strides.
  const Tensor values = torch::stable::clone(weight);
  fused::WeightSize size = size_of(values, groups);
  size.shuffle = shuffle;
  Tensor packed = dispatch_fused(values.scalar_type(), [&]<class T>(T) {
    return pack<T>({.data = data_of<T>(values),
                    .size = size,
                    .stride_group = size.out * values.stride(0),
                    .stride_out = values.stride(0),
                    .stride_in = values.stride(1),
                    .stride_y = values.stride(2),
                    .stride_x = values.stride(3)},
                   values);
  });
  return std::make_shared<const PackedWeight>(PackedWeight{fingerprint_of(values, groups, shuffle), packed});
}

int64_t packed_bytes(const Tensor& weight, int64_t groups) {
  return dispatch_fused(weight.scalar_type(), [&]<class T>(T) {
    return static_cast<int64_t>(fused::packed_size<T>(size_of(weight, groups)) * sizeof(T));
  });
}

Tensor pack_transposed_weight(const Tensor& weight, int64_t groups) {
  fused::WeightSize size = size_of(weight, groups);
  const int64_t stride_group = size.out * weight.stride(0);
  std::swap(size.out, size.in);
  const int64_t last = weight.size(2) - 1;
  return dispatch_fused(weight.scalar_type(), [&]<class T>(T) {
    return pack<T>({.data = data_of<T>(weight) + last * weight.stride(2) + last * weight.stride(3),
                    .size = size,
                    .stride_group = stride_group,
                    .stride_out = weight.stride(1),
                    .stride_in = weight.stride(0),
                    .stride_y = -weight.stride(2),
                    .stride_x = -weight.stride(3)},
                   weight);
  });
}

}  // namespace ghostsr::ops
