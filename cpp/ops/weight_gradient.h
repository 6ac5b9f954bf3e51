// Gradients of a convolution's weight on the CPU, where there is a faster way than torch's.
#pragma once

#include "ops/arguments.h"
#include "ops/convolution_path.h"

namespace ghostsr::ops {

// The gradient [C_out, C_in / groups, kH, kW] for a layer with checked arguments whose own path is the one
// taken, in channels_last; null where torch's convolution is the fastest. The choice depends on sizes alone.
OptionalTensor weight_gradient(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                               const ConvolutionGeometry& geometry, ConvolutionPath path);

}  // namespace ghostsr::ops
