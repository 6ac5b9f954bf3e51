// V = B^T d B: a 6x6 patch of the input becomes 36 components, channel by channel.
#pragma once

#include <cstring>

#include "core/fused/kernels/floats.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// B^T on six vectors. Row i holds the coefficients of prod_{j != i} (x - p_j) over the points
// 0, 1/sqrt2, -1/sqrt2, sqrt2, -sqrt2, and the last row those of the product over all five. The rows of a
// pair +-p share their even and odd halves.
inline constexpr float kSmallPoint = 0.70710678118654752F;
inline constexpr float kLargePoint = 1.41421356237309505F;

template <int lanes>
struct Pair {
  Floats<lanes> plus;
  Floats<lanes> minus;
};

template <int lanes>
GHOSTSR_ALWAYS_INLINE Floats<lanes> at_zero(Floats<lanes> d0, Floats<lanes> d2, Floats<lanes> d4) {
  return d0 + (d4 - 2.5F * d2);
}

template <int lanes>
GHOSTSR_ALWAYS_INLINE Pair<lanes> at_small(Floats<lanes> d1, Floats<lanes> d2, Floats<lanes> d3,
                                           Floats<lanes> d4) {
  const Floats<lanes> even = d4 - 2.0F * d2;
  const Floats<lanes> odd = d3 - 2.0F * d1;
  return {even + kSmallPoint * odd, even - kSmallPoint * odd};
}

template <int lanes>
GHOSTSR_ALWAYS_INLINE Pair<lanes> at_large(Floats<lanes> d1, Floats<lanes> d2, Floats<lanes> d3,
                                           Floats<lanes> d4) {
  const Floats<lanes> even = d4 - 0.5F * d2;
  const Floats<lanes> odd = d3 - 0.5F * d1;
  return {even + kLargePoint * odd, even - kLargePoint * odd};
}

// Transforms one row of six columns and stores its six components.
template <int lanes>
GHOSTSR_ALWAYS_INLINE void transform_input_row(const Floats<lanes> (&d)[6], float* to,
                                               std::ptrdiff_t stride) {
  store<lanes>(to, at_zero<lanes>(d[0], d[2], d[4]));
  const Pair<lanes> small = at_small<lanes>(d[1], d[2], d[3], d[4]);
  store<lanes>(to + stride, small.plus);
  store<lanes>(to + 2 * stride, small.minus);
  const Pair<lanes> large = at_large<lanes>(d[1], d[2], d[3], d[4]);
  store<lanes>(to + 3 * stride, large.plus);
  store<lanes>(to + 4 * stride, large.minus);
  store<lanes>(to + 5 * stride, at_zero<lanes>(d[1], d[3], d[5]));
}

// One vector of channels of a tile. Rows are made in pairs, so that twelve temporaries stay in registers:
// loading the patch again from the first-level cache costs less than spilling.
template <int lanes>
GHOSTSR_ALWAYS_INLINE void transform_input_vector(const float* from, std::ptrdiff_t stride_y,
                                                  std::ptrdiff_t stride_x, float* to, std::ptrdiff_t stride) {
  Floats<lanes> first[6];
  Floats<lanes> second[6];
  const auto at = [&](int y, int x) __attribute__((always_inline)) {
    return load<lanes>(from + y * stride_y + x * stride_x);
  };

#pragma GCC unroll 6
  for (int x = 0; x < 6; ++x) {
    const Pair<lanes> pair = at_small<lanes>(at(1, x), at(2, x), at(3, x), at(4, x));
    first[x] = pair.plus;
    second[x] = pair.minus;
  }
  transform_input_row<lanes>(first, to + 6 * stride, stride);
  transform_input_row<lanes>(second, to + 12 * stride, stride);

#pragma GCC unroll 6
  for (int x = 0; x < 6; ++x) {
    const Pair<lanes> pair = at_large<lanes>(at(1, x), at(2, x), at(3, x), at(4, x));
    first[x] = pair.plus;
    second[x] = pair.minus;
  }
  transform_input_row<lanes>(first, to + 18 * stride, stride);
  transform_input_row<lanes>(second, to + 24 * stride, stride);

#pragma GCC unroll 6
  for (int x = 0; x < 6; ++x) {
    first[x] = at_zero<lanes>(at(0, x), at(2, x), at(4, x));
  }
  transform_input_row<lanes>(first, to, stride);

#pragma GCC unroll 6
  for (int x = 0; x < 6; ++x) {
    first[x] = at_zero<lanes>(at(1, x), at(3, x), at(5, x));
  }
  transform_input_row<lanes>(first, to + 30 * stride, stride);
}

// `channels` is a multiple of 8.
inline void transform_input_tile(const float* from, std::ptrdiff_t stride_y, std::ptrdiff_t stride_x,
                                 int channels, float* to, std::ptrdiff_t stride) {
  for_each_vector(channels, [&](auto lanes, int channel) {
    transform_input_vector<decltype(lanes)::value>(from + channel, stride_y, stride_x, to + channel, stride);
  });
}

// Copies channels first.. of the 6x6 pixels at (top, left) into `patch`, with zeros outside of the picture
// and in the channels that pad `padded` ones.
inline void gather_patch(const InputMap& input, std::ptrdiff_t top, std::ptrdiff_t left, int first,
                         int padded, float* patch) {
  const int channels = input.channels - first < padded ? input.channels - first : padded;
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 6; ++x) {
      const std::ptrdiff_t row = top + y;
      const std::ptrdiff_t column = left + x;
      float* pixel = patch + (6 * y + x) * padded;
      int copied = 0;
      if (row >= 0 && row < input.height && column >= 0 && column < input.width) {
        copied = channels;
        std::memcpy(pixel, input.data + row * input.stride_y + column * input.stride_x + first,
                    static_cast<std::size_t>(copied) * sizeof(float));
      }
      std::memset(pixel + copied, 0, static_cast<std::size_t>(padded - copied) * sizeof(float));
    }
  }
}

static void transform_input(const InputMap& input, const TileRun& tiles, float* patch,
                            const ComponentMatrices& transformed) {
  const int whole = input.channels / 8 * 8;
  for (int tile = 0; tile < tiles.count; ++tile) {
    const std::int64_t index = tiles.first + tile;
    const std::ptrdiff_t top = index / tiles.columns * 4 - input.padding_y;
    const std::ptrdiff_t left = index % tiles.columns * 4 - input.padding_x;
    float* to = transformed.data + tile * transformed.row_stride;
    const bool inside = top >= 0 && left >= 0 && top + 6 <= input.height && left + 6 <= input.width;
    const int direct = inside ? whole : 0;
    if (direct > 0) {
      transform_input_tile(input.data + top * input.stride_y + left * input.stride_x, input.stride_y,
                           input.stride_x, direct, to, transformed.component_stride);
    }
    if (direct < input.channels) {
      const int padded = (input.channels - direct + 7) / 8 * 8;
      gather_patch(input, top, left, direct, padded, patch);
      transform_input_tile(patch, 6 * padded, padded, padded, to + direct, transformed.component_stride);
    }
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
