// The one place that decides how the CPU computes a convolution.
#pragma once

#include "core/fused/convolution.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

enum class ConvolutionPath {
  aten,       // torch's kernels, then the epilogue in one pass
  winograd,   // our own of 3x3 layers, with the epilogue fused
  pointwise,  // our own of 1x1 layers, with the epilogue fused
};

// What the environment variable GHOSTSR_CONVOLUTION forces: "winograd" or "pointwise" (wherever that path is
// possible at all, and torch's elsewhere), "aten", or "auto", the default. It is read on every call, so that
// tests can change it.
enum class PathChoice { automatic, aten, winograd, pointwise };
PathChoice path_choice();

// The path of a layer with checked arguments and this many ghosts.
ConvolutionPath choose_path(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                            int64_t ghosts);

// The sizes of a layer on one of our own paths.
fused::Shape fused_shape(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                         int64_t ghosts);

}  // namespace ghostsr::ops
