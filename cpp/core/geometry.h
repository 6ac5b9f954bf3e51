#pragma once

#include <cstdint>

namespace ghostsr {

// Elements, not bytes, between neighbours along each axis of a map [batch, channel, y, x].
struct Strides {
  int64_t batch;
  int64_t channel;
  int64_t y;
  int64_t x;
};

struct Extent {
  int64_t batch;
  int64_t height;
  int64_t width;
};

// The largest |dy| or |dx| of a ghost.
inline constexpr int kMaxShift = 7;

// What one output channel of a ghost layer is made of:
// gain * intrinsic[source, y + dy, x + dx] + bias, the intrinsic map being zero outside.
// An intrinsic channel is itself: shift (0, 0), gain 1, bias 0.
struct ChannelOrigin {
  int32_t source;
  int32_t dy;
  int32_t dx;
  int32_t ghost;  // index of the ghost, or -1 for an intrinsic channel
  double gain;
  double bias;
};

}  // namespace ghostsr
