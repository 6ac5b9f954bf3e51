// How much the kernels take at a time; callers lend those for channels_last maps the memory for it.
#pragma once

#include <cstdint>

namespace ghostsr {

// Channels that kernels take together, whatever the level: a whole vector, or several.
inline constexpr int kGroup = 8;

// Pixels of a row that are turned into planes together: few enough for the planes of usual layers to stay in
// the nearest caches, and for those of wide maps to stay small.
inline constexpr int64_t kPlanePixels = 64;

// Elements that shift_concat_backward_pixels works in.
constexpr int64_t backward_workspace(int64_t intrinsic_channels, int64_t output_channels, int64_t radius) {
  return 2 * intrinsic_channels * kPlanePixels +
         (2 * radius + 1) * output_channels * (kPlanePixels + 2 * radius);
}

// Elements that ghost_sum_pixels works in.
constexpr int64_t ghost_sum_workspace(int64_t intrinsic_channels, int64_t output_channels, int64_t radius) {
  return (output_channels + 1) * kPlanePixels +
         (2 * radius + 1) * intrinsic_channels * (kPlanePixels + 2 * radius);
}

}  // namespace ghostsr
