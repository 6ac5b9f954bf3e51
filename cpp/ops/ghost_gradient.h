// The checked inputs of the operators that compute gradients.
#pragma once

#include "core/activation.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

struct GhostGradient {
  const Tensor& grad_output;
  const OptionalTensor& intrinsic;
  const OptionalTensor& output;
  int64_t intrinsic_channels;
  double residual_scale;
  ActivationKind activation;
  double slope;  // of a leaky activation
  MaskSource mask_source;
};

// `needs_intrinsic` tells whether the intrinsic map is read even without an activation.
GhostGradient check_ghost_gradient(const Tensor& grad_output, const GhostTables& tables,
                                   const OptionalTensor& intrinsic, const OptionalTensor& output,
                                   const ActivationArguments& activation, double residual_scale,
                                   bool needs_intrinsic);

}  // namespace ghostsr::ops
