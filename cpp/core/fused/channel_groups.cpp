#include "core/fused/channel_groups.h"

#include <algorithm>
#include <cstddef>

#include "core/fused/packed_weight.h"
#include "core/fused/rounding.h"

namespace ghostsr::fused {
namespace {

// Lanes whose sources lie as the lanes do, at one shift, come by one load.
void find_loads(ChannelGroup& group, std::size_t filled, std::int64_t padded_intrinsic,
                const ChannelOrigin* origins) {
  group.loads = 0;
  for (std::size_t lane = 0; lane < filled; ++lane) {
    const std::ptrdiff_t offset = group.offset[lane] - static_cast<std::ptrdiff_t>(lane);
    const std::ptrdiff_t channel = offset - origins[lane].dx * padded_intrinsic;
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

std::vector<std::int64_t> written_channels(std::int64_t channels, std::int64_t shuffle) {
  const std::int64_t pixels = shuffle * shuffle;
  std::vector<std::int64_t> written;
  written.reserve(static_cast<std::size_t>(channels));
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (std::int64_t channel = pixel; channel < channels; channel += pixels) {
      written.push_back(channel);
    }
  }
  return written;
}

std::vector<ChannelGroup> make_channel_groups(const ChannelPlan& channels, const WeightSize& size) {
  // Each group of a grouped convolution is padded by itself.
  const std::int64_t padded_group = round_up(size.out, kChannelPadding);
  const std::int64_t padded_intrinsic = size.groups * padded_group;
  const auto count = static_cast<std::int64_t>(channels.origins.size());
  std::vector<ChannelOrigin> origins;
  origins.reserve(channels.origins.size());
  for (const std::int64_t channel : written_channels(count, size.shuffle)) {
    origins.push_back(channels.origins[static_cast<std::size_t>(channel)]);
  }
  const auto row_channels = static_cast<std::size_t>(count / size.shuffle);
  const std::size_t row_groups = (row_channels + kGroup - 1) / kGroup;
  std::vector<ChannelGroup> groups(row_groups * static_cast<std::size_t>(size.shuffle));
  for (std::size_t index = 0; index < groups.size(); ++index) {
    ChannelGroup& group = groups[index];
    const std::size_t within = index % row_groups * kGroup;
    const ChannelOrigin* first = origins.data() + index / row_groups * row_channels + within;
    const std::size_t filled = std::min<std::size_t>(kGroup, row_channels - within);
    for (std::size_t lane = 0; lane < kGroup; ++lane) {
      const ChannelOrigin& origin = first[lane < filled ? lane : 0];
      group.dy[lane] = origin.dy;
      group.offset[lane] = origin.dx * padded_intrinsic + origin.source / size.out * padded_group +
                           place_of(size, origin.source % size.out);
      group.gain[lane] = static_cast<float>(origin.gain);
      group.bias[lane] = static_cast<float>(origin.bias);
    }
    find_loads(group, filled, padded_intrinsic, first);
  }
  return groups;
}

bool are_in_order(const ChannelGroup* groups, std::int64_t row_channels, std::int64_t rows) {
  const std::int64_t row_groups = row_channels / kGroup;
  if (row_channels % kMostLanes != 0) {
    return false;
  }
  for (std::int64_t index = 0; index < row_groups * rows; ++index) {
    const ChannelGroup& group = groups[index];
    const ChannelGroup& first = groups[index / row_groups * row_groups];
    if (group.loads != 1 || group.load_offset[0] != first.load_offset[0] + index % row_groups * kGroup) {
      return false;
    }
  }
  return true;
}

}  // namespace ghostsr::fused
