#pragma once

#include "core/activation.h"
#include "core/channel_plan.h"
#include "ops/arguments.h"
#include "ops/ghost_sums.h"

namespace ghostsr::ops {

// The CPU epilogue of checked arguments into a new map.
Tensor run_shift_concat(const Tensor& intrinsic, const ChannelPlan& plan, const Activation& activation,
                        const OptionalTensor& residual, double residual_scale, bool channels_last);

// The gradient of the intrinsic map in a new one. Unless null, `grad_residual` becomes that of the residual,
// in the same pass; maps must then be channels_last, of at least two intrinsic channels, and the activation
// not undone by the intrinsic map.
Tensor intrinsic_gradient(const LaidOutGradient& maps, const ChannelPlan& plan,
                          OptionalTensor* grad_residual);

}  // namespace ghostsr::ops
