// M = V U for each of the 36 components: small matrix products whose operands stay in the second-level cache.
#pragma once

#include "core/winograd/kernels/simd.h"
#include "core/winograd/packed_weight.h"
#include "core/winograd/stages.h"

namespace ghostsr::winograd::GHOSTSR_SIMD_LEVEL {

// Accumulators fill the registers: 6 x 2 of AVX2's 16, 12 x 2 of AVX-512's 32, and of the portable level's 2
// x 4 of 16 (x86-64) with the vectors of the weight beside them.
inline constexpr int kKernelRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 2;

// Reads a Prefetch line by line, a few for each call of the micro-kernel.
class PrefetchCursor {
 public:
  explicit PrefetchCursor(const Prefetch& range) : range_(range) {}

  std::ptrdiff_t lines() const { return range_.rows * ((range_.bytes + kLine - 1) / kLine); }

  GHOSTSR_ALWAYS_INLINE void advance(std::ptrdiff_t lines) {
    for (; lines > 0 && row_ < range_.rows; --lines) {
      __builtin_prefetch(range_.data + row_ * range_.row_stride_bytes + byte_, 0, 2);
      byte_ += kLine;
      if (byte_ >= range_.bytes) {
        byte_ = 0;
        ++row_;
      }
    }
  }

 private:
  static constexpr std::ptrdiff_t kLine = 64;
  Prefetch range_;
  int row_ = 0;
  std::ptrdiff_t byte_ = 0;
};

// c[rows][vectors] = a[rows][depth] * b[depth][vectors]. Vector v of b's row k is at
// b + k * row_stride + v * vector_stride; c's vectors are side by side.
template <int lanes, int rows, int vectors, int row_stride>
GHOSTSR_ALWAYS_INLINE void micro_kernel(const float* a, std::ptrdiff_t a_stride, const float* b,
                                        std::ptrdiff_t vector_stride, int depth, float* c,
                                        std::ptrdiff_t c_stride) {
  Vector<lanes> sum[rows][vectors] = {};
#pragma GCC unroll 4
  for (int k = 0; k < depth; ++k) {
    Vector<lanes> weight[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      weight[v] = load<lanes>(b + v * vector_stride);
    }
    b += row_stride;
#pragma GCC unroll 12
    for (int row = 0; row < rows; ++row) {
      const float value = a[row * a_stride + k];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        sum[row][v] += value * weight[v];
      }
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      store<lanes>(c + row * c_stride + v * lanes, sum[row][v]);
    }
  }
}

template <int lanes, int vectors, int row_stride, int rows = kKernelRows>
GHOSTSR_ALWAYS_INLINE void multiply_rows(int count, const float* a, std::ptrdiff_t a_stride, const float* b,
                                         std::ptrdiff_t vector_stride, int depth, float* c,
                                         std::ptrdiff_t c_stride) {
  if constexpr (rows > 1) {
    if (count < rows) {
      multiply_rows<lanes, vectors, row_stride, rows - 1>(count, a, a_stride, b, vector_stride, depth, c,
                                                          c_stride);
      return;
    }
  }
  micro_kernel<lanes, rows, vectors, row_stride>(a, a_stride, b, vector_stride, depth, c, c_stride);
}

// All tiles by one panel (or one pair of panels), in groups of nearly equal size.
template <int lanes, int vectors, int row_stride>
[[gnu::noinline]] void multiply_panel(const Product& product, const float* v, const float* panel,
                                      std::ptrdiff_t vector_stride, float* m, PrefetchCursor& cursor,
                                      std::ptrdiff_t lines) {
  const int groups = (product.tiles + kKernelRows - 1) / kKernelRows;
  for (int group = 0; group < groups; ++group) {
    const int begin = product.tiles * group / groups;
    const int end = product.tiles * (group + 1) / groups;
    cursor.advance(lines);
    multiply_rows<lanes, vectors, row_stride>(
        end - begin, v + begin * product.input.row_stride, product.input.row_stride, panel, vector_stride,
        product.in, m + begin * product.output.row_stride, product.output.row_stride);
  }
}

static void multiply(const Product& product) {
  constexpr int kWidth = static_cast<int>(kPanelWidth);
  PrefetchCursor cursor(product.prefetch);
  const int calls = kComponents * ((product.padded_out + kWidth - 1) / kWidth) *
                    ((product.tiles + kKernelRows - 1) / kKernelRows);
  const std::ptrdiff_t lines = (cursor.lines() + calls - 1) / calls;
  const std::ptrdiff_t panel_size = static_cast<std::ptrdiff_t>(product.in) * kWidth;

  for (int component = 0; component < kComponents; ++component) {
    const float* v = product.input.data + component * product.input.component_stride;
    const float* u =
        product.packed_weight + static_cast<std::ptrdiff_t>(component) * product.in * product.padded_out;
    float* m = product.output.data + component * product.output.component_stride;
    int channel = 0;
    if constexpr (kLanes == 16) {
      for (; channel + 2 * kWidth <= product.padded_out; channel += 2 * kWidth) {
        multiply_panel<16, 2, kWidth>(product, v, u, panel_size, m + channel, cursor, 2 * lines);
        u += 2 * panel_size;
      }
    }
    for (; channel + kWidth <= product.padded_out; channel += kWidth) {
      multiply_panel<kLanes, kWidth / kLanes, kWidth>(product, v, u, kLanes, m + channel, cursor, lines);
      u += panel_size;
    }
    if (channel < product.padded_out) {
      multiply_panel<kGroupLanes, 8 / kGroupLanes, 8>(product, v, u, kGroupLanes, m + channel, cursor, lines);
    }
  }
}

}  // namespace ghostsr::winograd::GHOSTSR_SIMD_LEVEL
