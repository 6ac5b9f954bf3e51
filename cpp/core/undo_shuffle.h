// The gradient of a pixel shuffle, and of the activation before it.
#pragma once

#include <cstdint>

#include "core/activation.h"
#include "core/geometry.h"

namespace ghostsr {

// result[k] at (y, x) is the gradient of channel k / factor² at pixel (factor * y, factor * x) plus the place
// of k in a block, times the activation's derivative.
template <typename T>
struct UndoShuffleParams {
  Extent extent;     // of the result
  int64_t channels;  // of grad_output
  int64_t factor;
  const T* grad_output;
  Strides grad_output_strides;
  ActivationKind activation;
  double slope;     // of a leaky activation
  const T* output;  // a map like grad_output with the signs that the activation saw
  Strides output_strides;
  T* result;  // [batch, factor² * channels, height, width], the channels of a pixel side by side
  Strides result_strides;
};

// Makes the rows [begin, end) of batch * height. T is float, double, Float16 or BFloat16.
template <typename T>
void undo_shuffle(const UndoShuffleParams<T>& params, int64_t begin, int64_t end);

}  // namespace ghostsr
