// What the gradients of a ghost layer's small parameters share.
#pragma once

#include <vector>

#include "core/channel_plan.h"
#include "core/shift_selection.h"
#include "ops/arguments.h"
#include "ops/ghost_gradient.h"

namespace ghostsr::ops {

// The maps of checked arguments, in one layout for the kernels: that of the maps which the forward made.
struct LaidOutGradient {
  explicit LaidOutGradient(const GhostGradient& gradient);

  Activation activation() const { return {gradient.activation, slopes.data()}; }

  const GhostGradient& gradient;
  bool channels_last;
  Tensor grad_output;
  OptionalTensor output;
  OptionalTensor intrinsic;
  std::vector<double> slopes;
};

// Sums per ghost, [G * width], the same whatever the number of threads. See GhostSum.
std::vector<double> ghost_sums(const LaidOutGradient& maps, const ChannelPlan& plan, GhostSum kind,
                               int64_t max_shift);

// A tensor of these values in the dtype and on the device of `like`.
Tensor to_vector(const std::vector<double>& values, const IntList& size, const Tensor& like);

}  // namespace ghostsr::ops
