#include "core/winograd/packed_weight.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/winograd/sizes.h"
#include "core/winograd/winograd.h"

namespace ghostsr::winograd {
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

// One kernel's 36 components. In double, so that packing adds no error but the last rounding.
std::array<double, kComponents> transform_kernel(const Weight& weight, std::int64_t out, std::int64_t in) {
  const float* kernel = weight.data + out * weight.stride_out + in * weight.stride_in;
  double rows[6][3];
  for (int u = 0; u < 6; ++u) {
    for (int x = 0; x < 3; ++x) {
      rows[u][x] = 0.0;
      for (int y = 0; y < 3; ++y) {
        rows[u][x] +=
            kKernelTransform[u][y] * static_cast<double>(kernel[y * weight.stride_y + x * weight.stride_x]);
      }
    }
  }
  std::array<double, kComponents> components;
  for (int u = 0; u < 6; ++u) {
    for (int v = 0; v < 6; ++v) {
      components[static_cast<std::size_t>(6 * u + v)] = rows[u][0] * kKernelTransform[v][0] +
                                                        rows[u][1] * kKernelTransform[v][1] +
                                                        rows[u][2] * kKernelTransform[v][2];
    }
  }
  return components;
}

}  // namespace

std::size_t packed_size(std::int64_t out, std::int64_t in) {
  return static_cast<std::size_t>(kComponents * in * round_up(out, kChannelPadding));
}

void pack(const Weight& weight, float* packed) {
  const std::int64_t padded_out = round_up(weight.out, kChannelPadding);
  const std::int64_t component_stride = weight.in * padded_out;
  for (std::int64_t panel = 0; panel < padded_out; panel += kPanelWidth) {
    const std::int64_t width = std::min(kPanelWidth, padded_out - panel);
    for (std::int64_t in = 0; in < weight.in; ++in) {
      float* target = packed + panel * weight.in + in * width;
      for (std::int64_t lane = 0; lane < width; ++lane) {
        const std::int64_t out = panel + lane;
        if (out < weight.out) {
          const auto components = transform_kernel(weight, out, in);
          for (int component = 0; component < kComponents; ++component) {
            target[component * component_stride + lane] =
                static_cast<float>(components[static_cast<std::size_t>(component)]);
          }
        } else {
          for (int component = 0; component < kComponents; ++component) {
            target[component * component_stride + lane] = 0.0F;
          }
        }
      }
    }
  }
}

}  // namespace ghostsr::winograd
