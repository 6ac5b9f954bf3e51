#include "core/shift_concat.h"

#include <memory>

#include "core/half.h"
#include "core/simd/block_sizes.h"
#include "core/simd/kernels.h"

namespace ghostsr {
namespace {

template <typename T>
bool channels_innermost(const ShiftConcatParams<T>& params) {
  return params.intrinsic_strides.channel == 1 && params.output_strides.channel == 1 &&
         (params.residual == nullptr || params.residual_strides.channel == 1) &&
         // A map of one column or one channel has unit stride both ways; rows are then the longer run.
         !(params.intrinsic_strides.x == 1 && params.output_strides.x == 1);
}

template <typename T>
bool channels_innermost(const ShiftConcatBackwardParams<T>& params) {
  return params.grad_output_strides.channel == 1 && params.grad_intrinsic_strides.channel == 1 &&
         (params.mask_source != MaskSource::output || params.output_strides.channel == 1) &&
         (params.mask_source != MaskSource::intrinsic || params.intrinsic_strides.channel == 1) &&
         !(params.grad_output_strides.x == 1 && params.grad_intrinsic_strides.x == 1);
}

template <typename T>
void backward_by_pixels(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  const int64_t outputs = params.reader_begin[params.intrinsic_channels];
  const auto workspace =
      std::make_unique_for_overwrite<accumulator_t<T>[]>(backward_workspace(outputs, params.radius));
  const auto offsets = std::make_unique_for_overwrite<int64_t[]>(backward_offsets(outputs, params.radius));
  shift_kernels<T>(kernels()).backward_pixels(params, begin, end, workspace.get(), offsets.get());
}

}  // namespace

template <typename T>
int64_t shift_concat_tasks(const ShiftConcatParams<T>& params) {
  const int64_t rows = params.extent.batch * params.extent.height;
  return channels_innermost(params) ? rows : rows * params.output_channels;
}

template <typename T>
int64_t shift_concat_backward_tasks(const ShiftConcatBackwardParams<T>& params) {
  const int64_t rows = params.extent.batch * params.extent.height;
  return channels_innermost(params) ? rows : rows * params.intrinsic_channels;
}

template <typename T>
void shift_concat(const ShiftConcatParams<T>& params, int64_t begin, int64_t end) {
  if (channels_innermost(params)) {
    shift_kernels<T>(kernels()).concat_pixels(params, begin, end);
  } else {
    shift_kernels<T>(kernels()).concat_rows(params, begin, end);
  }
}

template <typename T>
void shift_concat_backward(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  if (channels_innermost(params)) {
    backward_by_pixels(params, begin, end);
  } else {
    shift_kernels<T>(kernels()).backward_rows(params, begin, end);
  }
}

#define GHOSTSR_INSTANTIATE(T)                                                       \
  template int64_t shift_concat_tasks(const ShiftConcatParams<T>&);                  \
  template int64_t shift_concat_backward_tasks(const ShiftConcatBackwardParams<T>&); \
  template void shift_concat(const ShiftConcatParams<T>&, int64_t, int64_t);         \
  template void shift_concat_backward(const ShiftConcatBackwardParams<T>&, int64_t, int64_t);

GHOSTSR_INSTANTIATE(float)
GHOSTSR_INSTANTIATE(double)
GHOSTSR_INSTANTIATE(Float16)
GHOSTSR_INSTANTIATE(BFloat16)

}  // namespace ghostsr
