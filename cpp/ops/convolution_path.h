// The one place that decides how the CPU computes a convolution.
#pragma once

#include "core/winograd/winograd.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

enum class ConvolutionPath {
  aten,      // torch's kernels, then the epilogue in one pass
  winograd,  // our own, with the epilogue fused
};

// What the environment variable GHOSTSR_CONVOLUTION forces: "aten", "winograd" (wherever it is possible at
// all) or "auto", the default. It is read on every call, so that tests can change it.
enum class PathChoice { automatic, aten, winograd };
PathChoice path_choice();

// The path of a layer with checked arguments and this many ghosts.
ConvolutionPath choose_path(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                            int64_t ghosts);

// The sizes of a layer on the Winograd path.
winograd::Shape winograd_shape(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                               int64_t ghosts);

}  // namespace ghostsr::ops
