// The one place that decides how the CPU computes a convolution.
#pragma once

#include <string>

#include "core/fused/convolution.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

enum class ConvolutionPath {
  aten,       // torch's kernels, then the epilogue in one pass
  winograd,   // our own of 3x3 layers, with the epilogue fused
  pointwise,  // our own of 1x1 layers, with the epilogue fused
  direct,     // our own of both in bfloat16, with the epilogue fused
};

// Our own path of a layer with checked arguments, where it has one for the layout and dtype; else aten.
ConvolutionPath own_path(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry);

// Whether a layer's own path is to be taken: where it is the faster one, or always or never where that is
// forced. `packed` tells whether the packed weight is at hand in all calls but the first.
bool takes_own_path(ConvolutionPath own, const fused::Shape& shape, bool packed);

// The sizes of a layer on one of our own paths.
fused::Shape fused_shape(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                         int64_t ghosts, int64_t shuffle = 1);

}  // namespace ghostsr::ops
