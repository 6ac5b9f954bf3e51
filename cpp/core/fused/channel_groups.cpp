#include "core/fused/channel_groups.h"

#include <algorithm>
#include <cstddef>

#include "core/fused/packed_weight.h"
#include "core/fused/rounding.h"

namespace ghostsr::fused {
namespace {

// Lanes whose sources lie as the lanes do, at one shift, come by one load.
void find_loads(ChannelGroup& group, std::size_t filled, std::int64_t padded_intrinsic,
                const std::vector<ChannelOrigin>& origins, std::size_t first) {
  group.loads = 0;
  for (std::size_t lane = 0; lane < filled; ++lane) {
    const std::ptrdiff_t offset = group.offset[lane] - static_cast<std::ptrdiff_t>(lane);
    const std::ptrdiff_t channel = offset - origins[first + lane].dx * padded_intrinsic;
    if (channel < 0 || channel + kGroup > padded_intrinsic) {
      group.loads = 0;
      return;
    }
    int load = 0;
    while (load < group.loads &&
           (group.load_dy[load] != group.dy[lane] || group.load_offset[load] != offset)) {
      ++load;
    }
    group.load_dy[load] = group.dy[lane];
    group.load_offset[load] = offset;
    group.load_of[lane] = load;
    group.loads = std::max(group.loads, load + 1);
  }
}

}  // namespace

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
    for (std::size_t lane = 0; lane < kGroup; ++lane) {
      const ChannelOrigin& origin = channels.origins[lane < filled ? first + lane : first];
      group.dy[lane] = origin.dy;
      group.offset[lane] =
          origin.dx * padded_intrinsic + origin.source / size.out * padded_group + origin.source % size.out;
      group.gain[lane] = static_cast<float>(origin.gain);
      group.bias[lane] = static_cast<float>(origin.bias);
    }
    find_loads(group, filled, padded_intrinsic, channels.origins, first);
  }
  return groups;
}

}  // namespace ghostsr::fused
