#pragma once

#include <array>
#include <tuple>

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

// Torch's pixel shuffle of a map of that layout, which the result keeps.
Tensor pixel_shuffle(const Tensor& map, int64_t factor, bool channels_last);

// The gradients of conv2d for input, weight and bias by torch's own kernels; an unwanted one is an empty
// tensor. The arguments must have been checked.
std::tuple<Tensor, Tensor, Tensor> convolve_backward(const Tensor& grad_output, const Tensor& input,
                                                     const Tensor& weight,
                                                     const ConvolutionGeometry& geometry,
                                                     const std::array<bool, 3>& output_mask);

// The operator `convolution_backward`: convolve_backward() of checked arguments.
std::tuple<Tensor, Tensor, Tensor> checked_convolution_backward(const Tensor& grad_output,
                                                                const Tensor& input, const Tensor& weight,
                                                                const IntList& stride, const IntList& padding,
                                                                const IntList& dilation, int64_t groups,
                                                                const std::vector<bool>& output_mask);

// The layout rule of every layer's output: that of the input, or of the weight where it says more.
bool convolves_to_channels_last(const Tensor& input, const Tensor& weight);

}  // namespace ghostsr::ops
