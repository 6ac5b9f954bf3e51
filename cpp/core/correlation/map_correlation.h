// Correlations of whole maps at small lags: the sums that choose and refit filters during conversion.
//
// A map is cut into tiles, and each tile is multiplied with its surroundings in the frequency domain, where
// all lags together cost little more than one product of the maps: at the 25 lags of a 3x3 filter and shifts
// by one pixel, about a seventh of the multiplications.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "core/parallel_for.h"

namespace ghostsr {

// The largest lag along one axis.
constexpr int64_t kMaxLag = 8;

struct MapCorrelation {
  Extent extent;
  const float* first;  // [batch, first_channels, height, width], dense
  int64_t first_channels;
  const float* second;  // [batch, second_channels, height, width], dense; may be `first`
  int64_t second_channels;
  int64_t max_lag_y;  // 0..kMaxLag
  int64_t max_lag_x;
};

// With ly in -max_lag_y..max_lag_y and lx in -max_lag_x..max_lag_x, writes
//   sums[ly + max_lag_y, lx + max_lag_x, i, j] =
//       sum over n, y, x of first[n, i, y, x] * second[n, j, y + ly, x + lx],
// maps being zero outside. Products of some 65 thousand positions are summed in float32, and those sums in
// double. The result does not depend on how `parallel` cuts the work. A NaN spoils all sums of its channel.
// Where `second` is `first`, sums[l, i, j] and sums[-l, j, i] are equal to the last bit.
void correlate_maps(const MapCorrelation& maps, double* sums, ParallelFor parallel);

}  // namespace ghostsr
