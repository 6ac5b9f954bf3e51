// Y = A^T M A + bias: 36 components become 4x4 pixels, channel by channel.
#pragma once

#include "core/fused/kernels/floats.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// A^T on six vectors: row k holds the k-th powers of the points 0, +-1/sqrt2, +-sqrt2; the point at infinity
// adds to row 3 alone. With s and d the sums and differences of the pairs +-p:
//   y0 = m0 + s_small + s_large             y1 = (d_small + 2 d_large) / sqrt2
//   y2 = (s_small + 4 s_large) / 2          y3 = (d_small + 8 d_large) / (2 sqrt2) + m5
inline constexpr float kRootHalf = 0.70710678118654752F;

// Transforms one row of six columns, adds the bias and stores its four pixels.
template <int lanes>
GHOSTSR_ALWAYS_INLINE void transform_output_row(const Floats<lanes> (&m)[6], Floats<lanes> bias, float* to,
                                                std::ptrdiff_t stride) {
  const Floats<lanes> small_sum = m[1] + m[2];
  const Floats<lanes> large_sum = m[3] + m[4];
  const Floats<lanes> small_difference = m[1] - m[2];
  const Floats<lanes> large_difference = m[3] - m[4];
  store<lanes>(to, ((m[0] + bias) + small_sum) + large_sum);
  store<lanes>(to + stride, bias + kRootHalf * (small_difference + 2.0F * large_difference));
  store<lanes>(to + 2 * stride, bias + 0.5F * (small_sum + 4.0F * large_sum));
  store<lanes>(to + 3 * stride,
               (m[5] + bias) + 0.5F * kRootHalf * (small_difference + 8.0F * large_difference));
}

// One vector of channels of a tile; rows are made in pairs, as in the input transform.
template <int lanes>
GHOSTSR_ALWAYS_INLINE void transform_output_vector(const float* from, std::ptrdiff_t stride,
                                                   Floats<lanes> bias, float* to, std::ptrdiff_t stride_y,
                                                   std::ptrdiff_t stride_x) {
  Floats<lanes> first[6];
  Floats<lanes> second[6];
  const auto at = [&](int u, int v)
                      __attribute__((always_inline)) { return load<lanes>(from + (6 * u + v) * stride); };

#pragma GCC unroll 6
  for (int v = 0; v < 6; ++v) {
    const Floats<lanes> small = at(1, v) + at(2, v);
    const Floats<lanes> large = at(3, v) + at(4, v);
    first[v] = (at(0, v) + small) + large;
    second[v] = 0.5F * (small + 4.0F * large);
  }
  transform_output_row<lanes>(first, bias, to, stride_x);
  transform_output_row<lanes>(second, bias, to + 2 * stride_y, stride_x);

#pragma GCC unroll 6
  for (int v = 0; v < 6; ++v) {
    const Floats<lanes> small = at(1, v) - at(2, v);
    const Floats<lanes> large = at(3, v) - at(4, v);
    first[v] = kRootHalf * (small + 2.0F * large);
    second[v] = at(5, v) + 0.5F * kRootHalf * (small + 8.0F * large);
  }
  transform_output_row<lanes>(first, bias, to + stride_y, stride_x);
  transform_output_row<lanes>(second, bias, to + 3 * stride_y, stride_x);
}

static void transform_output(const ComponentMatrices& product, const TileRun& tiles, const float* bias,
                             const ChannelRange& channels, const LineBuffer& lines) {
  for (int tile = 0; tile < tiles.count; ++tile) {
    const std::int64_t index = tiles.first + tile;
    const std::ptrdiff_t y = index / tiles.columns * 4;
    const std::ptrdiff_t x = index % tiles.columns * 4;
    // The line buffer's rows are a multiple of 4, so a tile's rows follow one another.
    float* to =
        lines.data + y % lines.rows * lines.row_stride + (lines.margin + x) * lines.channels + channels.first;
    const float* from = product.data + tile * product.row_stride;
    for_each_vector(channels.count, [&](auto lanes, int channel) {
      constexpr int kWidth = decltype(lanes)::value;
      transform_output_vector<kWidth>(from + channel, product.component_stride,
                                      load<kWidth>(bias + channels.first + channel), to + channel,
                                      lines.row_stride, lines.channels);
    });
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
