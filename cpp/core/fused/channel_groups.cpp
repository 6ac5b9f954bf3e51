#include "core/fused/channel_groups.h"

#include <algorithm>
#include <cstddef>

#include "core/fused/packed_weight.h"
#include "core/fused/rounding.h"

namespace ghostsr::fused {

std::vector<ChannelGroup> make_channel_groups(const ChannelPlan& channels, const WeightSize& size) {
  // Each group of a grouped convolution is padded by itself.
  const std::int64_t padded_group = round_up(size.out, kChannelPadding);
  const std::int64_t padded_intrinsic = size.groups * padded_group;
  const std::size_t count = channels.origins.size();
  std::vector<ChannelGroup> groups((count + kGroup - 1) / kGroup);
  for (std::size_t index = 0; index < groups.size(); ++index) {
    ChannelGroup& group = groups[index];
    const std::size_t first = index * kGroup;
    const std::size_t filled = std::min<std::size_t>(kGroup, count - first);
    group.together = filled == kGroup;
    for (std::size_t lane = 0; lane < kGroup; ++lane) {
      const ChannelOrigin& origin = channels.origins[lane < filled ? first + lane : first];
      group.dy[lane] = origin.dy;
      group.offset[lane] =
          origin.dx * padded_intrinsic + origin.source / size.out * padded_group + origin.source % size.out;
      group.gain[lane] = static_cast<float>(origin.gain);
      group.bias[lane] = static_cast<float>(origin.bias);
      group.together = group.together && group.dy[lane] == group.dy[0] &&
                       group.offset[lane] == group.offset[0] + static_cast<std::ptrdiff_t>(lane);
    }
  }
  return groups;
}

}  // namespace ghostsr::fused
