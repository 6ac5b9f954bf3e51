// What the gradients of a ghost layer's small parameters share.
#pragma once

#include <vector>

#include "core/channel_plan.h"
#include "core/shift_selection.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// The checked inputs of a gradient.
struct GhostGradient {
  const Tensor& grad_output;
  const OptionalTensor& intrinsic;
  const OptionalTensor& output;
  int64_t intrinsic_channels;
  double residual_scale;
  ReluWitness witness;
};

// `needs_intrinsic` tells whether the intrinsic map is read even without a ReLU.
GhostGradient check_ghost_gradient(const Tensor& grad_output, const GhostTables& tables,
                                   const OptionalTensor& intrinsic, const OptionalTensor& output,
                                   const ActivationName& activation, double residual_scale,
                                   bool needs_intrinsic);

// Sums per ghost, [G * width], the same whatever the number of threads. See GhostSum.
std::vector<double> ghost_sums(const GhostGradient& gradient, const ChannelPlan& plan, GhostSum kind,
                               int64_t max_shift);

// A tensor of these values in the dtype and on the device of `like`.
Tensor to_vector(const std::vector<double>& values, const IntList& size, const Tensor& like);

}  // namespace ghostsr::ops
