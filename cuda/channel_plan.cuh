#pragma once

#include "channel_plan.h"
#include "device_tables.cuh"
#include "tiling.cuh"

namespace ghostsr::cuda {

__device__ __forceinline__ void widen_range(ShiftRange& range, int32_t dy, int32_t dx) {
  range.least_y = dy < range.least_y ? dy : range.least_y;
  range.most_y = dy > range.most_y ? dy : range.most_y;
  range.least_x = dx < range.least_x ? dx : range.least_x;
  range.most_x = dx > range.most_x ? dx : range.most_x;
}

// A thread lists the readers of one intrinsic channel. Where its list begins it finds by counting the readers
// of lower channels, so no thread waits for another's result, and the order of a list is that of the outputs.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    build_channel_plan(const DeviceTables<T> tables, const ChannelPlanView<accumulator_t<T>> plan) {
  using A = accumulator_t<T>;
  __shared__ ChannelLink<A> links[kThreads];
  const int32_t channels = tables.intrinsic_channels + tables.ghosts;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t channel = static_cast<int32_t>(blockIdx.x) * kThreads + thread;
  if (blockIdx.x == 0) {
    for (int32_t ghost = thread; ghost < tables.ghosts; ghost += kThreads) {
      plan.ghosts[ghost] = {-1, 0, 0, 0, A(0), A(0), A(0)};
    }
    __syncthreads();
  }
  int32_t lower = 0;
  int32_t own = 0;
  ShiftRange range{};
  for (int32_t first = 0; first < channels; first += kThreads) {
    const int32_t count = channels - first < kThreads ? channels - first : kThreads;
    if (thread < count) {
      int32_t ghost;
      links[thread] = resolve_channel(tables, first + thread, ghost);
      if (blockIdx.x == 0 && ghost >= 0) {
        plan.ghosts[ghost] = links[thread];
      }
    }
    __syncthreads();
    for (int32_t index = 0; index < count; ++index) {
      lower += links[index].source < channel ? 1 : 0;
      own += links[index].source == channel ? 1 : 0;
      widen_range(range, links[index].dy, links[index].dx);
    }
    __syncthreads();
  }
  if (channel == 0) {
    *plan.shift_range = range;
  }
  if (channel < tables.intrinsic_channels) {
    plan.reader_begin[channel] = lower;
    if (channel == tables.intrinsic_channels - 1) {
      plan.reader_begin[channel + 1] = lower + own;
    }
  }
  for (int32_t first = 0; first < channels; first += kThreads) {
    const int32_t count = channels - first < kThreads ? channels - first : kThreads;
    if (thread < count) {
      links[thread] = resolve_channel(tables, first + thread);
    }
    __syncthreads();
    for (int32_t index = 0; index < count; ++index) {
      if (links[index].source == channel) {
        plan.readers[lower] = links[index];
        ++lower;
      }
    }
    __syncthreads();
  }
}

template <typename A>
int64_t channel_plan_bytes(int64_t intrinsic_channels, int64_t ghosts) {
  return (intrinsic_channels + 2 * ghosts) * static_cast<int64_t>(sizeof(ChannelLink<A>)) +
         static_cast<int64_t>(sizeof(ShiftRange)) +
         (intrinsic_channels + 1) * static_cast<int64_t>(sizeof(int32_t));
}

template <typename A>
ChannelPlanView<A> channel_plan_view(void* memory, int64_t intrinsic_channels, int64_t ghosts) {
  auto* links = static_cast<ChannelLink<A>*>(memory);
  auto* shift_range = reinterpret_cast<ShiftRange*>(links + intrinsic_channels + 2 * ghosts);
  return {links, links + intrinsic_channels + ghosts, reinterpret_cast<int32_t*>(shift_range + 1),
          shift_range};
}

template <typename T>
void launch_channel_plan(const DeviceTables<T>& tables, const ChannelPlanView<accumulator_t<T>>& plan,
                         cudaStream_t stream) {
  launch("build_channel_plan", build_channel_plan<T>, divide_up(tables.intrinsic_channels, kThreads),
         kThreads, stream, tables, plan);
}

}  // namespace ghostsr::cuda
