// The channel plan as the epilogue reads it: eight output channels at a time.
#pragma once

#include <vector>

#include "core/channel_plan.h"
#include "core/fused/convolution.h"
#include "core/fused/stages.h"

namespace ghostsr::fused {

// For the intrinsic channels of a weight of this size.
std::vector<ChannelGroup> make_channel_groups(const ChannelPlan& channels, const WeightSize& size);

}  // namespace ghostsr::fused
