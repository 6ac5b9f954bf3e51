// Rows of channels_last maps turned into planes: one run of neighbouring pixels for each channel, so that
// channels which are shifted apart from one another can be worked on in lanes of pixels.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "core/simd/block_sizes.h"
#include "core/simd/vector.h"

namespace ghostsr {

namespace GHOSTSR_SIMD_LEVEL {

// Pixels of a plane that are worked on together.
inline constexpr int kPlaneLanes = kLanes > kGroup ? kLanes : kGroup;
static_assert(kPlanePixels % kPlaneLanes == 0);

template <typename A>
using Plane = Vector<A, kPlaneLanes>;

// Some pixels of a row, [first, first + pixels).
struct Piece {
  int64_t n;
  int64_t y;
  int64_t first;
  int64_t pixels;
  int64_t whole;  // pixels, rounded up to kPlaneLanes
};

GHOSTSR_ALWAYS_INLINE Piece make_piece(const Extent& extent, int64_t row, int64_t first) {
  const int64_t left = extent.width - first;
  const int64_t pixels = left < kPlanePixels ? left : kPlanePixels;
  return {row / extent.height, row % extent.height, first, pixels,
          (pixels + kPlaneLanes - 1) / kPlaneLanes * kPlaneLanes};
}

// The planes of the rows y - radius to y + radius around a piece, with `radius` more pixels on either side.
template <typename A>
struct PlaneLineBuffer {
  A* planes;  // [2 * radius + 1][channels][pitch]
  int64_t channels;
  int64_t pitch;
  int64_t radius;

  // Row y lies in slot y mod window; moving down one row replaces one slot.
  [[gnu::always_inline]] A* row(int64_t y) const {
    const int64_t window = 2 * radius + 1;
    return planes + ((y % window + window) % window) * channels * pitch;
  }
  // Where a channel's pixel `first` of the piece is.
  [[gnu::always_inline]] A* channel(int64_t y, int64_t index) const {
    return row(y) + index * pitch + radius;
  }
};

// Writes channels x pixels of a row as planes[channel * pitch + pixel]. `block(x, c)` gives eight channels of
// a pixel, `element(x, c)` one.
template <typename A, typename Block, typename Element>
GHOSTSR_ALWAYS_INLINE void to_planes(int64_t channels, int64_t pixels, int64_t pitch, A* planes,
                                     const Block& block, const Element& element) {
  const int64_t whole_pixels = pixels - pixels % kGroup;
  const int64_t whole_channels = channels - channels % kGroup;
  for (int64_t x = 0; x < whole_pixels; x += kGroup) {
    for (int64_t c = 0; c < whole_channels; c += kGroup) {
      Group<A> square[kGroup];
      for (int64_t lane = 0; lane < kGroup; ++lane) {
        square[lane] = block(x + lane, c);
      }
      transpose<A>(square);
      for (int64_t lane = 0; lane < kGroup; ++lane) {
        store<kGroup>(planes + (c + lane) * pitch + x, square[lane]);
      }
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t x = c < whole_channels ? whole_pixels : 0; x < pixels; ++x) {
      planes[c * pitch + x] = element(x, c);
    }
  }
}

// Writes planes back as a row whose pixels lie `step` apart.
template <typename T>
GHOSTSR_ALWAYS_INLINE void from_planes(const accumulator_t<T>* planes, int64_t channels, int64_t pixels,
                                       int64_t pitch, T* row, int64_t step) {
  using A = accumulator_t<T>;
  const int64_t whole_pixels = pixels - pixels % kGroup;
  const int64_t whole_channels = channels - channels % kGroup;
  for (int64_t x = 0; x < whole_pixels; x += kGroup) {
    for (int64_t c = 0; c < whole_channels; c += kGroup) {
      Group<A> square[kGroup];
      for (int64_t lane = 0; lane < kGroup; ++lane) {
        square[lane] = load<kGroup>(planes + (c + lane) * pitch + x);
      }
      transpose<A>(square);
      for (int64_t lane = 0; lane < kGroup; ++lane) {
        store<kGroup>(row + (x + lane) * step + c, square[lane]);
      }
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t x = c < whole_channels ? whole_pixels : 0; x < pixels; ++x) {
      row[x * step + c] = T(planes[c * pitch + x]);
    }
  }
}

// Sets [begin, end) of every plane to zero. The few pixels are the outer loop: a call of memset for each
// plane would take longer than all the rest.
template <typename A>
GHOSTSR_ALWAYS_INLINE void clear_planes(A* planes, int64_t channels, int64_t pitch, int64_t begin,
                                        int64_t end) {
  for (int64_t x = begin; x < end; ++x) {
    for (int64_t c = 0; c < channels; ++c) {
      planes[c * pitch + x] = A(0);
    }
  }
}

// Turns row y into its slot of the buffer, zero outside the map. `block(x, c)` and `element(x, c)` give what
// lies at pixel x of the row.
template <typename A, typename Block, typename Element>
GHOSTSR_ALWAYS_INLINE void fill_line(const PlaneLineBuffer<A>& lines, const Extent& extent,
                                     const Piece& piece, int64_t y, const Block& block,
                                     const Element& element) {
  A* planes = lines.row(y);
  const int64_t left = piece.first - lines.radius;
  const int64_t begin = left < 0 ? -left : 0;
  const int64_t most = extent.width - left;
  const int64_t wanted = piece.pixels + 2 * lines.radius;
  const bool inside = y >= 0 && y < extent.height;
  const int64_t end = !inside ? begin : most < wanted ? most : wanted;
  clear_planes(planes, lines.channels, lines.pitch, 0, begin);
  to_planes(
      lines.channels, end - begin, lines.pitch, planes + begin,
      [&](int64_t x, int64_t c) __attribute__((always_inline)) { return block(x + left + begin, c); },
      [&](int64_t x, int64_t c) __attribute__((always_inline)) { return element(x + left + begin, c); });
  clear_planes(planes, lines.channels, lines.pitch, end, piece.whole + 2 * lines.radius);
}

}  // namespace GHOSTSR_SIMD_LEVEL
}  // namespace ghostsr
