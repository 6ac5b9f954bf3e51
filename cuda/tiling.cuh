// How a map's elements are dealt to blocks. A block knows its image and tile from a few fast divisions.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "chunk.cuh"
#include "core/geometry.h"
#include "fast_divisor.cuh"
#include "launch.cuh"

namespace ghostsr::cuda {

constexpr int kThreads = 256;
constexpr int kItemsPerThread = 4;
constexpr int kTileItems = kThreads * kItemsPerThread;
constexpr int kPixelSteps = 16;
// Channels that a block keeps in shared memory.
constexpr int kSharedLinks = 512;

// Blocks for a multiprocessor that kernels with many values in registers ask for. Left alone, the compiler
// aims higher, at the price of spilled registers.
template <typename T>
constexpr int kBlocksAsked = sizeof(T) == 8 ? 2 : 3;

inline int32_t checked_int(const char* what, int64_t value) {
  if (value >= std::numeric_limits<int32_t>::max()) {
    throw std::runtime_error("ghostsr: found " + std::to_string(value) + " " + what +
                             "; less than 2^31 is needed");
  }
  return static_cast<int32_t>(value);
}

// A block takes kTileItems chunks of one plane, a chunk being sixteen bytes of a row. Neighbouring blocks
// take the same tile of neighbouring channels: an intrinsic channel and the ghosts made from it are read at
// about the same time, so that the memory is read once and the cache serves the rest.
struct RowTiling {
  int64_t first_image;
  int32_t items;  // chunks of a plane
  FastDivisor chunks_per_row;
  FastDivisor tiles;  // of a plane
  FastDivisor channels;
  int64_t blocks_per_image;

  template <typename T>
  static RowTiling of(const Extent& extent, int64_t channels, bool aligned) {
    // A row that begins anywhere touches at most this many chunks.
    const int64_t chunks =
        aligned ? divide_up(extent.width, kChunk<T>) : (extent.width + kChunk<T> - 2) / kChunk<T> + 1;
    RowTiling tiling{};
    tiling.items = checked_int("chunks of sixteen bytes in a plane", extent.height * chunks);
    const int64_t tiles = divide_up(tiling.items, kTileItems);
    tiling.chunks_per_row = FastDivisor(static_cast<int32_t>(chunks));
    tiling.tiles = FastDivisor(static_cast<int32_t>(tiles));
    tiling.channels = FastDivisor(checked_int("channels", channels));
    tiling.blocks_per_image = tiles * channels;
    return tiling;
  }
};

// A block takes kSharedLinks channels at most of a range of pixels of one image: a thread for each kChunk of
// them, and as many pixels side by side as then fit the block.
struct PixelTiling {
  int64_t first_image;
  int32_t pixels;       // of a map
  int32_t groups;       // of kChunk channels
  int32_t groups_tile;  // groups that a block takes
  int32_t pixels_step;  // pixels that a block takes at a time
  FastDivisor width;
  FastDivisor pixel_tiles;
  FastDivisor group_tiles;
  int64_t blocks_per_image;

  template <typename T>
  static PixelTiling of(const Extent& extent, int64_t channels) {
    PixelTiling tiling{};
    tiling.pixels = checked_int("pixels in a plane", extent.height * extent.width);
    tiling.groups = checked_int("channels", channels) / kChunk<T>;
    constexpr int kMostGroups = kSharedLinks / kChunk<T> < kThreads ? kSharedLinks / kChunk<T> : kThreads;
    tiling.groups_tile = tiling.groups < kMostGroups ? tiling.groups : kMostGroups;
    tiling.pixels_step = kThreads / tiling.groups_tile;
    const int64_t pixel_tiles = divide_up(tiling.pixels, int64_t{tiling.pixels_step} * kPixelSteps);
    const int64_t group_tiles = divide_up(tiling.groups, tiling.groups_tile);
    tiling.width = FastDivisor(static_cast<int32_t>(extent.width));
    tiling.pixel_tiles = FastDivisor(static_cast<int32_t>(pixel_tiles));
    tiling.group_tiles = FastDivisor(static_cast<int32_t>(group_tiles));
    tiling.blocks_per_image = pixel_tiles * group_tiles;
    return tiling;
  }
};

// A block takes kTileItems elements of one row y of an image, of all channels; neighbouring threads take
// neighbouring channels or neighbouring x.
struct ElementTiling {
  int64_t first_image;
  int32_t items;  // elements of a row of all channels
  bool channels_innermost;
  FastDivisor inner;  // channels or width
  FastDivisor tiles;
  FastDivisor height;
  int64_t blocks_per_image;

  static ElementTiling of(const Extent& extent, int64_t channels, bool channels_innermost) {
    ElementTiling tiling{};
    tiling.items = checked_int("elements in a row of all channels", extent.width * channels);
    tiling.channels_innermost = channels_innermost;
    tiling.inner = FastDivisor(static_cast<int32_t>(channels_innermost ? channels : extent.width));
    const int64_t tiles = divide_up(tiling.items, kTileItems);
    tiling.tiles = FastDivisor(static_cast<int32_t>(tiles));
    tiling.height = FastDivisor(checked_int("rows", extent.height));
    tiling.blocks_per_image = tiles * extent.height;
    return tiling;
  }
};

// Whether the rows, and whatever lies between them, begin on 16-byte boundaries.
template <typename T>
bool rows_aligned(const T* data, const Strides& strides) {
  return elements_past_boundary(data) == 0 && strides.batch % kChunk<T> == 0 &&
         strides.channel % kChunk<T> == 0 && strides.y % kChunk<T> == 0;
}

// Whether the channels of every pixel lie densely and begin on a 16-byte boundary.
template <typename T>
bool pixels_aligned(const T* data, const Strides& strides) {
  return strides.channel == 1 && elements_past_boundary(data) == 0 && strides.batch % kChunk<T> == 0 &&
         strides.y % kChunk<T> == 0 && strides.x % kChunk<T> == 0;
}

// Whether the offset of a shift and a channel from a pixel fits 32 bits.
inline bool offsets_fit(const Strides& strides, int64_t channels) {
  const auto magnitude = [](int64_t value) { return value < 0 ? -value : value; };
  return 8 * (magnitude(strides.y) + magnitude(strides.x)) + channels * magnitude(strides.channel) <
         std::numeric_limits<int32_t>::max();
}

// A plane too small to fill a block with chunks is better dealt by elements.
template <typename T>
bool fills_rows(const Extent& extent) {
  return extent.width >= kChunk<T> && extent.height * (extent.width / kChunk<T>) >= kThreads / 4;
}

}  // namespace ghostsr::cuda
