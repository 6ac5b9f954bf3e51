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

// Tiles of the inputs of one kernel row.
std::int64_t tile_steps(const WeightSize& size) { return ceil_div(size.kernel * size.in, kTileInputs); }

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

template <>
std::size_t packed_size<float>(const WeightSize& size) {
  return static_cast<std::size_t>(size.groups * group_size(size));
}

template <>
std::size_t packed_size<BFloat16>(const WeightSize& size) {
  return static_cast<std::size_t>(size.groups * ceil_div(size.out, kPanelWidth) * size.kernel *
                                  tile_steps(size) * kTileElements);
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

void pack(const WeightOf<BFloat16>& weight, BFloat16* packed) {
  const WeightSize& size = weight.size;
  const std::int64_t row_inputs = size.kernel * size.in;
  for (std::int64_t group = 0; group < size.groups; ++group) {
    for (std::int64_t panel = 0; panel < size.out; panel += kPanelWidth) {
      for (std::int64_t y = 0; y < size.kernel; ++y) {
        for (std::int64_t pair = 0; pair < tile_steps(size) * kTileInputs; pair += 2) {
          for (std::int64_t place = panel; place < panel + kPanelWidth; ++place) {
            for (std::int64_t input = pair; input < pair + 2; ++input) {
              *packed++ =
                  place < size.out && input < row_inputs
                      ? weight
                            .data[group * weight.stride_group + channel_at(size, place) * weight.stride_out +
                                  input % size.in * weight.stride_in + y * weight.stride_y +
                                  input / size.in * weight.stride_x]
                      : BFloat16(0.0F);
            }
          }
        }
      }
    }
  }
}

}  // namespace ghostsr::fused
