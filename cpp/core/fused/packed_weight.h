// The weights as the micro-kernel reads them: those of a 1x1 convolution as they are, and of a 3x3 one
// transformed, U = G g G^T, one 6x6 array for each pair of channels.
//
// Layout: [group][component][panel][in][width], where the output channels of a group are padded by zeros to a
// multiple of 8 and cut into panels of 16; the last panel's width is 8 if only 8 channels are left. A 1x1
// convolution has one component; component 6 * y + x of a 3x3 one is U[y][x].
//
// In bfloat16: [group][panel][kernel row][step][pair of inputs][width][2], where the inputs of a kernel row,
// the channels of neighbouring pixels one after another, are padded by zeros to a multiple of 32 and cut into
// steps of so many, and the last panel's width is 16 too.
//
// Before a pixel shuffle, channels that become neighbours in a pixel are neighbours here: channel c * r^2 + k
// of a group lies at place k * (out / r^2) + c, if r^2 divides `out`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/simd/block_sizes.h"

namespace ghostsr::fused {

struct WeightSize;

// Output channels are padded to a multiple of this.
inline constexpr std::int64_t kChannelPadding = kGroup;

// Output channels of a full panel.
inline constexpr std::int64_t kPanelWidth = 16;

// The components of a tile in Winograd's domain: 6 x 6.
inline constexpr int kComponents = 36;

// The place of an output channel within its group, and the channel at a place.
std::int64_t place_of(const WeightSize& size, std::int64_t channel);
std::int64_t channel_at(const WeightSize& size, std::int64_t place);

}  // namespace ghostsr::fused
