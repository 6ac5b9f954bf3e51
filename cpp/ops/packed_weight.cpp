#include "ops/packed_weight.h"

#include <torch/csrc/stable/ops.h>

#include <array>
#include <cstring>
#include <utility>

#include "core/fused/convolution.h"
#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/layout.h"

namespace ghostsr::ops {
namespace {

constexpr size_t kFingerprintFloats = sizeof(uint64_t) / sizeof(float);

// A hash of the values, of how they lie and of how they are grouped. It reads the weight once, which takes a
// hundredth of the layer's time; four chains of multiplications hide each other's latency.
uint64_t fingerprint(const Tensor& weight, int64_t groups) {
  constexpr uint64_t kPrime = 0x9e3779b97f4a7c15ULL;
  std::array<uint64_t, 4> chains{1, 2, 3, 4};
  const auto mix = [&](size_t chain, uint64_t word) {
    chains[chain] = (chains[chain] ^ word) * kPrime;
    chains[chain] ^= chains[chain] >> 29U;
  };
  mix(2, static_cast<uint64_t>(groups));
  for (int64_t axis = 0; axis < weight.dim(); ++axis) {
    mix(0, static_cast<uint64_t>(weight.size(axis)));
    mix(1, static_cast<uint64_t>(weight.stride(axis)));
  }
  const auto* bytes = static_cast<const char*>(weight.const_data_ptr());
  const size_t count = static_cast<size_t>(weight.numel()) * sizeof(float);
  size_t offset = 0;
  for (; offset + 32 <= count; offset += 32) {
    std::array<uint64_t, 4> words;
    std::memcpy(words.data(), bytes + offset, 32);
    for (size_t chain = 0; chain < 4; ++chain) {
      mix(chain, words[chain]);
    }
  }
  for (; offset < count; offset += sizeof(float)) {
    uint32_t word = 0;
    std::memcpy(&word, bytes + offset, sizeof(word));
    mix(0, word);
  }
  return chains[0] ^ (chains[1] * 3) ^ (chains[2] * 5) ^ (chains[3] * 7);
}

// Whether the values fill their memory, so that it can be read from end to end.
bool is_dense(const Tensor& weight) {
  return weight.is_contiguous() || (prefers_channels_last(weight) &&
                                    weight.stride(0) == weight.size(1) * weight.size(2) * weight.size(3));
}

bool is_packable(const Tensor& weight) {
  const bool square = weight.size(2) == weight.size(3);
  return weight.scalar_type() == ScalarType::Float && square &&
         (weight.size(2) == 3 || weight.size(2) == 1) && weight.is_cpu();
}

void check_packable(const Tensor& weight, int64_t groups) {
  check_map("weight", weight);
  if (!is_packable(weight)) {
    fail("weight: found shape " + size_text(weight) +
         "; a float32 weight [C_out, C_in, 3, 3] or [C_out, C_in, 1, 1] on the CPU can be packed");
  }
  check_groups(groups, weight);
}

fused::WeightSize size_of(const Tensor& weight, int64_t groups) {
  return {.out = weight.size(0) / groups, .in = weight.size(1), .groups = groups, .kernel = weight.size(2)};
}

Tensor pack(const fused::Weight& weight, const Tensor& like, size_t extra_floats) {
  const size_t floats = fused::packed_size(weight.size);
  Tensor packed = empty_vector({static_cast<int64_t>(floats + extra_floats)}, like);
  fused::pack(weight, mutable_data_of<float>(packed),
              [](int64_t count, FunctionRef<void(int64_t, int64_t)> body) {
                torch::stable::parallel_for(0, count, 1, body);
              });
  return packed;
}

}  // namespace

Tensor pack_weight(const Tensor& weight, int64_t groups) {
  check_packable(weight, groups);
  // Another thread may write to the weight meanwhile. The fingerprint must be that of the values packed, so
  // both come from one copy; a copy of a dense tensor keeps its strides.
  const Tensor values = torch::stable::clone(weight);
  const fused::WeightSize size = size_of(values, groups);
  Tensor packed = pack({.data = data_of<float>(values),
                        .size = size,
                        .stride_group = size.out * values.stride(0),
                        .stride_out = values.stride(0),
                        .stride_in = values.stride(1),
                        .stride_y = values.stride(2),
                        .stride_x = values.stride(3)},
                       values, kFingerprintFloats);
  const uint64_t print = is_dense(weight) ? fingerprint(values, groups) : 0;
  std::memcpy(mutable_data_of<float>(packed) + packed.numel() - kFingerprintFloats, &print, sizeof(print));
  return packed;
}

Tensor packed_or_fresh(const Tensor& weight, int64_t groups, const OptionalTensor& packed) {
  const size_t floats = fused::packed_size(size_of(weight, groups));
  if (packed.has_value() && is_dense(weight) && packed->scalar_type() == ScalarType::Float &&
      packed->is_cpu() && packed->is_contiguous() &&
      packed->numel() == static_cast<int64_t>(floats + kFingerprintFloats)) {
    uint64_t print = 0;
    std::memcpy(&print, data_of<float>(*packed) + floats, sizeof(print));
    if (print == fingerprint(weight, groups)) {
      return *packed;
    }
  }
  return pack_weight(weight, groups);
}

Tensor pack_transposed_weight(const Tensor& weight, int64_t groups) {
  fused::WeightSize size = size_of(weight, groups);
  const int64_t stride_group = size.out * weight.stride(0);
  std::swap(size.out, size.in);
  const int64_t last = weight.size(2) - 1;
  return pack({.data = data_of<float>(weight) + last * weight.stride(2) + last * weight.stride(3),
               .size = size,
               .stride_group = stride_group,
               .stride_out = weight.stride(1),
               .stride_in = weight.stride(0),
               .stride_y = -weight.stride(2),
               .stride_x = -weight.stride(3)},
              weight, 0);
}

}  // namespace ghostsr::ops
