// How much the kernels take at a time; callers lend those for channels_last maps the memory for it.
#pragma once

#include <cstdint>

namespace ghostsr {

// Channels that kernels take together, whatever the level: a whole vector, or several.
inline constexpr int kGroup = 8;

// Pixels of a row that are worked on together: few enough for what usual layers have there to stay in the
// nearest caches, and for that of wide maps to stay small.
inline constexpr int64_t kPlanePixels = 64;

// Elements that shift_concat_backward_pixels works in.
constexpr int64_t backward_workspace(int64_t output_channels, int64_t radius) {
  return (2 * radius + 1) * output_channels * (kPlanePixels + 2 * radius) + 3 * output_channels;
}

// Places of readers that it works in.
constexpr int64_t backward_offsets(int64_t output_channels, int64_t radius) {
  return (2 * radius + 1) * output_channels;
}

// Elements that ghost_sum_pixels works in.
constexpr int64_t ghost_sum_workspace(int64_t intrinsic_channels, int64_t output_channels, int64_t radius) {
  return (output_channels + 1) * kPlanePixels +
         (2 * radius + 1) * intrinsic_channels * (kPlanePixels + 2 * radius);
}

}  // namespace ghostsr
