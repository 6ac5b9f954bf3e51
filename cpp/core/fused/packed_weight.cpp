#include "core/fused/packed_weight.h"

#include <algorithm>

#include "core/fused/convolution.h"
#include "core/fused/rounding.h"
#include "core/fused/stages.h"
#include "core/simd/kernels.h"

namespace ghostsr::fused {
namespace {

// Input channels of a task: a panel of so many takes some microseconds, as waking a thread does.
constexpr std::int64_t kTaskChannels = 64;

std::int64_t component_size(const WeightSize& size) { return size.in * round_up(size.out, kChannelPadding); }

std::int64_t group_size(const WeightSize& size) {
  return (size.kernel == 1 ? 1 : kComponents) * component_size(size);
}

}  // namespace

std::int64_t place_of(const WeightSize& size, std::int64_t channel) {
  const std::int64_t pixels = size.shuffle * size.shuffle;
  return size.out % pixels != 0 ? channel : channel % pixels * (size.out / pixels) + channel / pixels;
}

std::int64_t channel_at(const WeightSize& size, std::int64_t place) {
  const std::int64_t pixels = size.shuffle * size.shuffle;
  const std::int64_t neighbours = size.out / pixels;
  return size.out % pixels != 0 ? place : place % neighbours * pixels + place / neighbours;
}

std::size_t packed_size(const WeightSize& size) {
  return static_cast<std::size_t>(size.groups * group_size(size));
}

void pack(const Weight& weight, float* packed, ParallelFor parallel, const Stages* chosen) {
  const WeightSize& size = weight.size;
  const Stages& stages = chosen != nullptr ? *chosen : *kernels().fused;
  const std::int64_t padded_out = round_up(size.out, kChannelPadding);
  const std::int64_t panels = ceil_div(size.out, kPanelWidth);
  const std::int64_t parts = ceil_div(size.in, kTaskChannels);
  parallel(size.groups * panels * parts, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t group = task / (panels * parts);
      const std::int64_t out = task / parts % panels * kPanelWidth;
      const std::int64_t in = task % parts * kTaskChannels;
      const std::int64_t width = std::min(kPanelWidth, padded_out - out);
      KernelPanel panel{
          .data = weight.data + group * weight.stride_group + in * weight.stride_in,
          .width = static_cast<int>(width),
          .out = static_cast<int>(std::min(width, size.out - out)),
          .out_offset = {},
          .in = std::min(kTaskChannels, size.in - in),
          .kernel = static_cast<int>(size.kernel),
          .stride_in = weight.stride_in,
          .stride_y = weight.stride_y,
          .stride_x = weight.stride_x,
      };
      for (int lane = 0; lane < panel.out; ++lane) {
        panel.out_offset[lane] = channel_at(size, out + lane) * weight.stride_out;
      }
      stages.pack(panel, packed + group * group_size(size) + out * size.in + in * width,
                  component_size(size));
    }
  });
}

}  // namespace ghostsr::fused
