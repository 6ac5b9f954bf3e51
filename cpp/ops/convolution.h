#pragma once

#include "ops/arguments.h"

namespace ghostsr::ops {

// conv2d by torch's own kernels. The arguments must have been checked.
Tensor convolve(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                const ConvolutionGeometry& geometry);

// The operator `convolution`: convolve() of checked arguments, in the layout that
// convolves_to_channels_last() promises.
Tensor checked_convolution(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                           const IntList& stride, const IntList& padding, const IntList& dilation,
                           int64_t groups);

// The layout rule of every layer's output: that of the input, or of the weight where it says more.
bool convolves_to_channels_last(const Tensor& input, const Tensor& weight);

}  // namespace ghostsr::ops
