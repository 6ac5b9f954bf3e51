// The gradients of a convolution on the CPU.
#pragma once

#include <array>
#include <tuple>

#include "ops/arguments.h"

namespace ghostsr::ops {

// The gradients of checked arguments for input, weight and bias, by our own kernels where those are faster;
// an unwanted one is an empty tensor.
std::tuple<Tensor, Tensor, Tensor> convolution_gradients(const Tensor& grad_output, const Tensor& input,
                                                         const Tensor& weight,
                                                         const ConvolutionGeometry& geometry,
                                                         const std::array<bool, 3>& output_mask);

}  // namespace ghostsr::ops
