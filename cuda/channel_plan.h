// The tables of a ghost layer, turned round for gradients.
#pragma once

#include <cuda_runtime_api.h>

#include "device_tables.h"

namespace ghostsr::cuda {

// How far the ghosts of a layer are shifted; holds (0, 0).
struct ShiftRange {
  int32_t least_y;
  int32_t most_y;
  int32_t least_x;
  int32_t most_x;
};

// Device memory of a plan, filled by launch_channel_plan().
template <typename A>
struct ChannelPlanView {
  ChannelLink<A>* readers;  // [intrinsic + ghosts], sorted by source, then by output
  ChannelLink<A>*
      ghosts;  // [ghosts], of each ghost; its output is -1 where `order` is no permutation and leaves it out
  int32_t* reader_begin;  // [intrinsic + 1]: readers[reader_begin[c] .. reader_begin[c + 1]) read channel c
  ShiftRange* shift_range;
};

template <typename A>
int64_t channel_plan_bytes(int64_t intrinsic_channels, int64_t ghosts);

// The plan in `memory`, of channel_plan_bytes() and aligned to eight.
template <typename A>
ChannelPlanView<A> channel_plan_view(void* memory, int64_t intrinsic_channels, int64_t ghosts);

// Queues the filling of the plan on `stream`. Throws when the launch fails.
template <typename T>
void launch_channel_plan(const DeviceTables<T>& tables, const ChannelPlanView<accumulator_t<T>>& plan,
                         cudaStream_t stream);

}  // namespace ghostsr::cuda
