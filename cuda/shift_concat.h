// The epilogue of a ghost layer on CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include "core/geometry.h"
#include "device_tables.h"

namespace ghostsr::cuda {

// output = activation(residual + residual_scale * channels), each channel made as the tables say. See
// core/shift_concat.h. Height times width must be below 2^31.
//
// The convolution's bias may be left to this pass, which has its maps at hand anyway: torch adds it in a pass
// of its own.
template <typename T>
struct ShiftConcatArguments {
  Extent extent;
  DeviceTables<T> tables;
  const T* intrinsic;
  Strides intrinsic_strides;
  NumberTable<T> convolution_bias;  // [intrinsic_channels], still to be added to the intrinsic map; null when
                                    // it has been
  const T* residual;                // null when there is none
  Strides residual_strides;
  T* output;
  Strides output_strides;
  accumulator_t<T> residual_scale;
};

// How the work is dealt to threads.
enum class ShiftConcatPath {
  rows,      // sixteen bytes of a row each: maps whose rows lie densely
  pixels,    // sixteen bytes of channels of a pixel each: channels_last maps
  elements,  // one element each: anything
};

// Whether a path other than `elements` can take these strides and this alignment.
template <typename T>
bool can_take_rows(const ShiftConcatArguments<T>& arguments);
template <typename T>
bool can_take_pixels(const ShiftConcatArguments<T>& arguments);

// The fastest path that these strides and this alignment allow.
template <typename T>
ShiftConcatPath shift_concat_path(const ShiftConcatArguments<T>& arguments);

// Queues the work on `stream`. T is float, double, Float16 or BFloat16. Throws when a launch fails.
template <typename T>
void launch_shift_concat(const ShiftConcatArguments<T>& arguments, ShiftConcatPath path, cudaStream_t stream);

}  // namespace ghostsr::cuda
