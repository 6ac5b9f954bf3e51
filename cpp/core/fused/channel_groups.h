// The channel plan as the epilogue reads it: eight output channels at a time.
#pragma once

#include <vector>

#include "core/channel_plan.h"
#include "core/fused/stages.h"

namespace ghostsr::fused {

// Each group of a grouped convolution, of `group` intrinsic channels, takes `padded_group` of a pixel's
// `padded_intrinsic`.
struct IntrinsicLayout {
  int group;
  int padded_group;
  int padded_intrinsic;
};

std::vector<ChannelGroup> make_channel_groups(const ChannelPlan& channels, const IntrinsicLayout& layout);

}  // namespace ghostsr::fused
