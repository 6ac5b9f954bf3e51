// The channel plan as the epilogue reads it: eight output channels at a time.
#pragma once

#include <vector>

#include "core/channel_plan.h"
#include "core/winograd/stages.h"

namespace ghostsr::winograd {

std::vector<ChannelGroup> make_channel_groups(const ChannelPlan& channels, int padded_intrinsic);

}  // namespace ghostsr::winograd
