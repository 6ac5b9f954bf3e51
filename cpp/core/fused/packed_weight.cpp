#include "core/fused/packed_weight.h"

#include <algorithm>
#include <array>
#include <numbers>

#include "core/fused/convolution.h"
#include "core/fused/sizes.h"

namespace ghostsr::fused {
namespace {

// The rows of G: a kernel (g0, g1, g2) is the polynomial g0 + g1 p + g2 p^2, evaluated at each point and
// divided by the product of the point's distances from the others; the last row, at infinity, is the leading
// coefficient.
constexpr double kRoot = std::numbers::sqrt2;
constexpr double kKernelTransform[6][3] = {
    {1.0, 0.0, 0.0},
    {-1.0 / 1.5, -kRoot / 2.0 / 1.5, -0.5 / 1.5},
    {-1.0 / 1.5, kRoot / 2.0 / 1.5, -0.5 / 1.5},
    {1.0 / 6.0, kRoot / 6.0, 2.0 / 6.0},
    {1.0 / 6.0, -kRoot / 6.0, 2.0 / 6.0},
    {0.0, 0.0, 1.0},
};

// Eight kernels side by side, as many as one vector of a panel.
constexpr std::int64_t kLanes = kChannelPadding;
using Lanes = std::array<double, kLanes>;

// One tap of the kernels out.. of one input channel, given at `first`; zeros past the last output channel.
Lanes gather_tap(const Weight& weight, const float* first, std::int64_t count) {
  Lanes tap{};
  for (std::int64_t lane = 0; lane < count; ++lane) {
    tap[static_cast<std::size_t>(lane)] = static_cast<double>(first[lane * weight.stride_out]);
  }
  return tap;
}

std::array<Lanes, 9> gather_taps(const Weight& weight, const float* first, std::int64_t count) {
  std::array<Lanes, 9> taps{};
  for (std::int64_t y = 0; y < 3; ++y) {
    for (std::int64_t x = 0; x < 3; ++x) {
      taps[static_cast<std::size_t>(3 * y + x)] =
          gather_tap(weight, first + y * weight.stride_y + x * weight.stride_x, count);
    }
  }
  return taps;
}

Lanes combine(const double (&row)[3], const Lanes& first, const Lanes& second, const Lanes& third) {
  Lanes sum;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    sum[lane] = row[0] * first[lane] + row[1] * second[lane] + row[2] * third[lane];
  }
  return sum;
}

// Writes the 36 components of eight kernels, in double until the last rounding.
void transform_kernels(const std::array<Lanes, 9>& taps, float* target, std::int64_t component_stride) {
  for (std::size_t u = 0; u < 6; ++u) {
    const double (&row)[3] = kKernelTransform[u];
    const Lanes left = combine(row, taps[0], taps[3], taps[6]);
    const Lanes middle = combine(row, taps[1], taps[4], taps[7]);
    const Lanes right = combine(row, taps[2], taps[5], taps[8]);
    for (std::size_t v = 0; v < 6; ++v) {
      const Lanes component = combine(kKernelTransform[v], left, middle, right);
      std::copy(component.begin(), component.end(),
                target + static_cast<std::int64_t>(6 * u + v) * component_stride);
    }
  }
}

std::int64_t group_size(const WeightSize& size) {
  const std::int64_t components = size.kernel == 1 ? 1 : kComponents;
  return components * size.in * round_up(size.out, kChannelPadding);
}

}  // namespace

std::size_t packed_size(const WeightSize& size) {
  return static_cast<std::size_t>(size.groups * group_size(size));
}

void pack(const Weight& weight, float* packed) {
  const WeightSize& size = weight.size;
  const std::int64_t padded_out = round_up(size.out, kChannelPadding);
  for (std::int64_t group = 0; group < size.groups; ++group) {
    for (std::int64_t out = 0; out < padded_out; out += kLanes) {
      const std::int64_t panel = out / kPanelWidth * kPanelWidth;
      const std::int64_t width = std::min(kPanelWidth, padded_out - panel);
      const std::int64_t count = std::min(kLanes, size.out - out);
      for (std::int64_t in = 0; in < size.in; ++in) {
        const float* first =
            weight.data + group * weight.stride_group + out * weight.stride_out + in * weight.stride_in;
        float* target = packed + group * group_size(size) + panel * size.in + in * width + out - panel;
        if (size.kernel == 1) {
          const Lanes tap = gather_tap(weight, first, count);
          std::transform(tap.begin(), tap.end(), target,
                         [](double value) { return static_cast<float>(value); });
        } else {
          transform_kernels(gather_taps(weight, first, count), target, size.in * padded_out);
        }
      }
    }
  }
}

}  // namespace ghostsr::fused
