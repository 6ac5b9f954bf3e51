// Rows of pixels of a channels_last map in shared memory, and how a map is dealt to blocks that keep them.
#pragma once

#include <cstdint>

#include "channel_plan.h"
#include "tiling.cuh"

namespace ghostsr::cuda {

// Of pixels. Below, the pixels read twice or for nothing outweigh the gain.
constexpr int32_t kLeastStagedWidth = 4;

// What a layer of ghosts one pixel away needs, for shifts that only the device knows.
constexpr ShiftRange kUsualShifts{-1, 1, -1, 1};

// A ring of as many rows as one row of pixels reads from.
struct PixelRing {
  int32_t rows;
  int32_t width;        // of a row, in pixels
  int32_t strip_width;  // pixels that the rows serve; 0 where not even one fits
  int32_t pixel_words;
  int32_t row_words;

  // The ring of a strip of `width` pixels, or of the widest equal parts of it that fit `words`, of which
  // `own_words` a pixel are kept free.
  __host__ __device__ __forceinline__ static PixelRing of(const ShiftRange& range, int32_t pixel_words,
                                                          int32_t own_words, int32_t width, int32_t words) {
    PixelRing ring{};
    ring.rows = range.most_y - range.least_y + 1;
    ring.pixel_words = pixel_words;
    const int32_t margin = range.most_x - range.least_x;
    const int32_t room = words - ring.rows * margin * pixel_words;
    const int32_t most = room < 0 ? 0 : room / (ring.rows * pixel_words + own_words);
    const int32_t parts = most == 0 ? 0 : (width + most - 1) / most;
    ring.strip_width = parts == 0 ? 0 : (width + parts - 1) / parts;
    ring.width = ring.strip_width + margin;
    ring.row_words = ring.width * pixel_words;
    return ring;
  }

  // The word of the pixel (dy, dx) away, from that of a pixel. To be wrapped once.
  __device__ __forceinline__ int32_t offset(int32_t dy, int32_t dx) const {
    return (dy < 0 ? rows + dy : dy) * row_words + dx * pixel_words;
  }
  __device__ __forceinline__ int32_t wrap(int32_t word) const {
    return word >= rows * row_words ? word - rows * row_words : word;
  }
  __device__ __forceinline__ int32_t wrap_row(int32_t row) const { return row >= rows ? row - rows : row; }
};

struct Strip {
  int32_t x_begin;
  int32_t width;
  int32_t y_begin;
  int32_t y_end;
};

struct StripPlace {
  int64_t image;
  Strip strip;
};

// A block takes a strip of pixels, of a few rows, of all channels.
struct RingTiling {
  int64_t first_image;
  bool staged;  // whether rows are kept in shared memory
  int32_t width;
  int32_t height;
  FastDivisor strips;    // side by side
  FastDivisor segments;  // above one another
  int64_t blocks_per_image;

  // Strips of `width` pixels, or where the block's memory does not hold as many, of any width.
  static RingTiling of(const Extent& extent, int32_t width) {
    constexpr int32_t kUnstagedWidth = 32;
    constexpr int64_t kBlocksWanted = 1024;
    constexpr int32_t kMostRows = 32;
    constexpr int32_t kLeastRows = 16;
    RingTiling tiling{};
    tiling.staged = width >= kLeastStagedWidth;
    tiling.width = tiling.staged ? width : kUnstagedWidth;
    const int64_t strips = divide_up(checked_int("columns", extent.width), tiling.width);
    tiling.height = kMostRows;
    while (tiling.height > kLeastRows &&
           extent.batch * strips * divide_up(extent.height, tiling.height) < kBlocksWanted) {
      tiling.height /= 2;
    }
    const int64_t segments = divide_up(checked_int("rows", extent.height), tiling.height);
    tiling.strips = FastDivisor(static_cast<int32_t>(strips));
    tiling.segments = FastDivisor(static_cast<int32_t>(segments));
    tiling.blocks_per_image = strips * segments;
    return tiling;
  }

  // Where the block works.
  __device__ __forceinline__ StripPlace place(const Extent& extent) const {
    const Quotient column = strips.divide(static_cast<int32_t>(blockIdx.x));
    const Quotient row = segments.divide(column.value);
    const auto map_width = static_cast<int32_t>(extent.width);
    const auto map_height = static_cast<int32_t>(extent.height);
    const int32_t x_begin = column.remainder * width;
    const int32_t y_begin = row.remainder * height;
    return {first_image + row.value,
            {x_begin, map_width - x_begin < width ? map_width - x_begin : width, y_begin,
             map_height - y_begin < height ? map_height : y_begin + height}};
  }
};

}  // namespace ghostsr::cuda
