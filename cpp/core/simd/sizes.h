// How much the kernels for channels_last maps take at a time; their callers lend them the memory for it.
#pragma once

#include <cstdint>

namespace ghostsr {

// Pixels of a row that are turned into planes together: few enough for the planes of usual layers to stay in
// the nearest caches, and for those of wide maps to stay small.
constexpr int64_t kPlanePixels = 64;

// Partial sums that ghost_sum_pixels keeps for each sum.
constexpr int64_t kGhostSumLanes = 8;

// Elements that shift_concat_backward_pixels works in.
constexpr int64_t backward_workspace(int64_t intrinsic_channels, int64_t output_channels, int64_t reach) {
  return 2 * intrinsic_channels * kPlanePixels +
         (2 * reach + 1) * output_channels * (kPlanePixels + 2 * reach);
}

// Elements that ghost_sum_pixels works in.
constexpr int64_t ghost_sum_workspace(int64_t intrinsic_channels, int64_t output_channels, int64_t reach) {
  return (output_channels + 1) * kPlanePixels +
         (2 * reach + 1) * intrinsic_channels * (kPlanePixels + 2 * reach);
}

}  // namespace ghostsr
