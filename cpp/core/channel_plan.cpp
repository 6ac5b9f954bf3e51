#include "core/channel_plan.h"

#include <algorithm>
#include <cstdlib>

namespace ghostsr {

ChannelPlan make_channel_plan(int64_t intrinsic_channels, int64_t ghosts, const int64_t* source,
                              const int64_t* shift, const double* gain, const double* ghost_bias,
                              const int64_t* order) {
  const int64_t channels = intrinsic_channels + ghosts;
  ChannelPlan plan;
  plan.intrinsic_channels = intrinsic_channels;
  plan.affine = gain != nullptr || ghost_bias != nullptr;
  plan.origins.resize(channels);
  plan.ghost_outputs.resize(ghosts);
  plan.reader_begin.assign(intrinsic_channels + 1, 0);
  // Nothing added: unlike a zero it keeps the sign of a negative zero.
  constexpr double kNoBias = -0.0;
  for (int64_t output = 0; output < channels; ++output) {
    const int64_t concatenated = order == nullptr ? output : order[output];
    ChannelOrigin& origin = plan.origins[output];
    if (concatenated < intrinsic_channels) {
      origin = {static_cast<int32_t>(concatenated), 0, 0, -1, 1.0, kNoBias};
    } else {
      const int64_t ghost = concatenated - intrinsic_channels;
      origin = {
          static_cast<int32_t>(source[ghost]),        static_cast<int32_t>(shift[2 * ghost]),
          static_cast<int32_t>(shift[2 * ghost + 1]), static_cast<int32_t>(ghost),
          gain == nullptr ? 1.0 : gain[ghost],        ghost_bias == nullptr ? kNoBias : ghost_bias[ghost]};
      plan.ghost_outputs[ghost] = output;
      plan.radius = std::max({plan.radius, std::abs(origin.dy), std::abs(origin.dx)});
    }
    ++plan.reader_begin[origin.source + 1];
  }
  for (int64_t channel = 0; channel < intrinsic_channels; ++channel) {
    plan.reader_begin[channel + 1] += plan.reader_begin[channel];
  }
  plan.readers.resize(channels);
  std::vector<int64_t> next(plan.reader_begin.begin(), plan.reader_begin.end() - 1);
  for (int64_t output = 0; output < channels; ++output) {
    plan.readers[next[plan.origins[output].source]++] = output;
  }
  return plan;
}

}  // namespace ghostsr
