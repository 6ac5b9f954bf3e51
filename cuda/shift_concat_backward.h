// The gradient of a ghost layer's epilogue for the intrinsic map, on CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include "channel_plan.h"
#include "core/activation.h"
#include "core/geometry.h"

namespace ghostsr::cuda {

// What the activation of the forward let through of the gradient of the output.
template <typename T>
struct OutputGradient {
  const T* data;
  Strides strides;
  ActivationKind activation;
  MaskSource mask_source;
  const T* output;  // of the forward; null unless it is the mask's source
  Strides output_strides;
  const T* intrinsic;  // null unless something reads it
  Strides intrinsic_strides;
  accumulator_t<T> residual_scale;
};

// See core/shift_concat.h.
template <typename T>
struct ShiftConcatBackwardArguments {
  Extent extent;
  int32_t intrinsic_channels;
  int32_t channels;  // of the output: as many as readers
  const ChannelLink<accumulator_t<T>>* readers;
  const int32_t* reader_begin;
  const ShiftRange* shift_range;
  OutputGradient<T> gradient;
  T* grad_intrinsic;
  Strides grad_intrinsic_strides;
};

// How the work is dealt to threads; as in the forward.
enum class ShiftConcatBackwardPath { rows, pixels, elements };

template <typename T>
bool can_take_rows(const ShiftConcatBackwardArguments<T>& arguments);
template <typename T>
bool can_take_pixels(const ShiftConcatBackwardArguments<T>& arguments);
template <typename T>
ShiftConcatBackwardPath shift_concat_backward_path(const ShiftConcatBackwardArguments<T>& arguments);

// Queues the work on `stream`. T is float, double, Float16 or BFloat16. Throws when a launch fails.
template <typename T>
void launch_shift_concat_backward(const ShiftConcatBackwardArguments<T>& arguments,
                                  ShiftConcatBackwardPath path, cudaStream_t stream);

}  // namespace ghostsr::cuda
