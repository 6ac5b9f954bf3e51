// The epilogue of a ghost layer, and its gradient.
#pragma once

#include <cstdint>

#include "core/activation.h"
#include "core/geometry.h"

namespace ghostsr {

// output = activation(residual + residual_scale * channels), each channel made as its ChannelOrigin says.
template <typename T>
struct ShiftConcatParams {
  Extent extent;
  int64_t output_channels;
  const ChannelOrigin* origins;  // [output_channels]
  int32_t radius;                // largest |dy| or |dx| among them
  const T* intrinsic;
  Strides intrinsic_strides;
  const T* residual;  // null when there is none
  Strides residual_strides;
  T* output;
  Strides output_strides;
  double residual_scale;
  Activation activation;
  bool affine;  // whether any origin has a gain or a bias
};

// grad_intrinsic[c] = residual_scale * sum over the readers p of c of gain[p] * (grad_output[p] times the
// activation's derivative, moved back by p's shift). Gathered, so that every element is written once.
template <typename T>
struct ShiftConcatBackwardParams {
  Extent extent;
  int64_t intrinsic_channels;
  const ChannelOrigin* origins;
  const int64_t* readers;  // output channels that read c: readers[reader_begin[c] .. reader_begin[c + 1])
  const int64_t* reader_begin;  // [intrinsic_channels + 1]
  int32_t radius;               // largest |dy| or |dx| among the origins
  const T* grad_output;
  Strides grad_output_strides;
  Activation activation;
  MaskSource mask_source;
  const T* output;
  Strides output_strides;
  const T* intrinsic;
  Strides intrinsic_strides;
  T* grad_intrinsic;
  Strides grad_intrinsic_strides;
  double residual_scale;
  // The gradient of the residual, written in the same pass where the maps are channels_last and the mask is
  // not the intrinsic map's: grad_output times the activation's derivative. Null when it is not wanted.
  T* grad_residual;
  Strides grad_residual_strides;
};

// The work is cut in this many independent tasks; any of them may run on any thread.
template <typename T>
int64_t shift_concat_tasks(const ShiftConcatParams<T>& params);
template <typename T>
int64_t shift_concat_backward_tasks(const ShiftConcatBackwardParams<T>& params);

// Runs the tasks [begin, end). T is float, double, Float16 or BFloat16.
template <typename T>
void shift_concat(const ShiftConcatParams<T>& params, int64_t begin, int64_t end);
template <typename T>
void shift_concat_backward(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end);

}  // namespace ghostsr
