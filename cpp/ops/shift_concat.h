#pragma once

#include "core/activation.h"
#include "core/channel_plan.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// The CPU epilogue of checked arguments into a new map.
Tensor run_shift_concat(const Tensor& intrinsic, const ChannelPlan& plan, const Activation& activation,
                        const OptionalTensor& residual, double residual_scale, bool channels_last);

}  // namespace ghostsr::ops
