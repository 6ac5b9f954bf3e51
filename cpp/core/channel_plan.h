#pragma once

#include <cstdint>
#include <vector>

#include "core/geometry.h"

namespace ghostsr {

// The tables of a ghost layer, resolved per output channel and, for gradients, per intrinsic channel.
struct ChannelPlan {
  std::vector<ChannelOrigin> origins;  // [intrinsic + ghosts], in output order
  std::vector<int64_t> ghost_outputs;  // [ghosts], the output channel of each ghost
  int64_t intrinsic_channels = 0;
  int32_t radius = 0;   // largest |dy| or |dx|
  bool affine = false;  // whether any ghost has a gain or a bias

  // Output channels that read intrinsic channel c: readers[reader_begin[c] .. reader_begin[c + 1]).
  std::vector<int64_t> readers;
  std::vector<int64_t> reader_begin;
};

// source [ghosts] and shift [ghosts][2] as (dy, dx) must be in range; gain and ghost_bias [ghosts] and the
// permutation order [intrinsic + ghosts] may be null.
ChannelPlan make_channel_plan(int64_t intrinsic_channels, int64_t ghosts, const int64_t* source,
                              const int64_t* shift, const double* gain, const double* ghost_bias,
                              const int64_t* order);

}  // namespace ghostsr
