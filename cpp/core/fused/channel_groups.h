// The channel plan as the epilogue reads it: eight output channels at a time, in the order that it writes
// them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/channel_plan.h"
#include "core/fused/convolution.h"
#include "core/fused/stages.h"

namespace ghostsr::fused {

// The output channels of each shuffled row one after another, and in a row pixel by pixel.
std::vector<std::int64_t> written_channels(std::int64_t channels, std::int64_t shuffle);

// For the intrinsic channels of a weight of this size. Each shuffled row has groups of its own, as many as
// the others.
std::vector<ChannelGroup> make_channel_groups(const ChannelPlan& channels, const WeightSize& size);

// Whether the groups of each row of a pixel, `row_channels` output channels, only repeat intrinsic channels
// that lie side by side, in whole vectors. For a plan without shifts.
bool are_in_order(const ChannelGroup* groups, std::int64_t row_channels, std::int64_t rows);

}  // namespace ghostsr::fused
