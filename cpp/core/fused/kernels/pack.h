// U = G g G^T: 3x3 kernels become 36 components; those of 1x1 convolutions stay as they are.
#pragma once

#include "core/fused/kernels/floats.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// The kernels of eight output channels side by side, in double until the last rounding.
using Kernels = Vector<double, kGroup>;

// G on three taps. A kernel (g0, g1, g2) is the polynomial g0 + g1 p + g2 p^2, evaluated at the points
// 0, +-1/sqrt2, +-sqrt2 and divided by the product of the point's distances from the others; the last row, at
// infinity, is the leading coefficient. The rows of a pair +-p share their even and odd halves.
GHOSTSR_ALWAYS_INLINE void transform_taps(const Kernels& g0, const Kernels& g1, const Kernels& g2,
                                          Kernels (&to)[6]) {
  constexpr double kRoot = 1.41421356237309504880;
  const Kernels small_even = (-2.0 / 3.0) * g0 - (1.0 / 3.0) * g2;
  const Kernels small_odd = (kRoot / 3.0) * g1;
  const Kernels large_even = (1.0 / 6.0) * g0 + (1.0 / 3.0) * g2;
  const Kernels large_odd = (kRoot / 6.0) * g1;
  to[0] = g0;
  to[1] = small_even - small_odd;
  to[2] = small_even + small_odd;
  to[3] = large_even + large_odd;
  to[4] = large_even - large_odd;
  to[5] = g2;
}

// Writes the 36 components of one input channel.
GHOSTSR_ALWAYS_INLINE void transform_kernels(const Kernels (&taps)[9], float* to, std::ptrdiff_t stride) {
  Kernels columns[3][6];
#pragma GCC unroll 3
  for (int x = 0; x < 3; ++x) {
    transform_taps(taps[x], taps[3 + x], taps[6 + x], columns[x]);
  }
#pragma GCC unroll 6
  for (int u = 0; u < 6; ++u) {
    Kernels row[6];
    transform_taps(columns[0][u], columns[1][u], columns[2][u], row);
#pragma GCC unroll 6
    for (int v = 0; v < 6; ++v) {
      store<kGroup>(to + (6 * u + v) * stride, __builtin_convertvector(row[v], Vector<float, kGroup>));
    }
  }
}

// Input channel by input channel, so that a panel's row, a cache line, is written as a whole.
static void pack(const KernelPanel& panel, float* to, std::ptrdiff_t component_stride) {
  const float* base[2][kGroup];
  Vector<int64_t, kGroup> filled[2];
  for (int lane = 0; lane < panel.width; ++lane) {
    const bool inside = lane < panel.out;
    base[lane / kGroup][lane % kGroup] = panel.data + (inside ? panel.out_offset[lane] : 0);
    filled[lane / kGroup][lane % kGroup] = inside ? -1 : 0;
  }
  for (std::ptrdiff_t in = 0; in < panel.in; ++in) {
    for (int half = 0; half < panel.width; half += kGroup) {
      const auto tap = [&](int y, int x) __attribute__((always_inline)) {
        const std::ptrdiff_t offset = in * panel.stride_in + y * panel.stride_y + x * panel.stride_x;
        const Kernels value = gather<double, kGroup>(base[half / kGroup], offset);
        return filled[half / kGroup] != 0 ? value : Kernels{};
      };
      float* row = to + in * panel.width + half;
      if (panel.kernel == 1) {
        store<kGroup>(row, __builtin_convertvector(tap(0, 0), Vector<float, kGroup>));
      } else {
        const Kernels taps[9] = {tap(0, 0), tap(0, 1), tap(0, 2), tap(1, 0), tap(1, 1),
                                 tap(1, 2), tap(2, 0), tap(2, 1), tap(2, 2)};
        transform_kernels(taps, row, component_stride);
      }
    }
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
