#include "ops/constants.h"

#include <torch/csrc/stable/ops.h>

#include "ops/layout.h"

namespace ghostsr::ops {
namespace {

// Whether the values fill their memory, so that it can be read from end to end.
bool is_dense(const Tensor& tensor) {
  return tensor.is_contiguous() ||
         (tensor.dim() == 4 && prefers_channels_last(tensor) && tensor.stride(1) == 1 &&
          tensor.stride(3) == tensor.size(1) && tensor.stride(2) == tensor.size(1) * tensor.size(3) &&
          tensor.stride(0) == tensor.size(1) * tensor.size(2) * tensor.size(3));
}

}  // namespace

void add_constant(Fingerprint& print, const Tensor& tensor) {
  print.add(static_cast<int64_t>(tensor.scalar_type()));
  for (const int64_t size : tensor.sizes()) {
    print.add(size);
  }
  // A copy of what has gaps or repeats itself; constants seldom do.
  const Tensor read = is_dense(tensor) ? tensor : torch::stable::contiguous(tensor);
  for (const int64_t stride : read.strides()) {
    print.add(stride);
  }
  print.add(read.const_data_ptr(), static_cast<size_t>(read.numel()) * read.element_size());
}

void add_constant(Fingerprint& print, const OptionalTensor& tensor) {
  print.add(static_cast<int64_t>(tensor.has_value()));
  if (tensor.has_value()) {
    add_constant(print, *tensor);
  }
}

}  // namespace ghostsr::ops
