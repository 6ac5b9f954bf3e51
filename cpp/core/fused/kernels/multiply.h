// Matrix products whose operands stay in the second-level cache: M = V U for each of the 36 components, or a
// whole 1x1 convolution.
#pragma once

#include "core/fused/kernels/floats.h"
#include "core/fused/packed_weight.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// Accumulators fill the registers: 6 x 2 of AVX2's 16, 12 x 2 of AVX-512's 32, and of the portable level's 2
// x 4 of 16 (x86-64) with the vectors of the weight beside them.
inline constexpr int kKernelRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 2;

// A panel of eight columns makes half as many sums, too few to hide their latency: each is then made of two,
// over the even and the odd rows of the weight. Sixteen lanes have enough rows.
inline constexpr int kNarrowChains = kLanes == 16 ? 1 : 2;

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

// sum[row][v] += a[row] * weight[v] for one input channel.
template <int lanes, int rows, int vectors>
GHOSTSR_ALWAYS_INLINE void multiply_add(const float* a, std::ptrdiff_t a_stride, const float* b,
                                        std::ptrdiff_t vector_stride, Floats<lanes> (&sum)[rows][vectors]) {
  Floats<lanes> weight[vectors];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    weight[v] = load<lanes>(b + v * vector_stride);
  }
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row) {
    const float value = a[row * a_stride];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sum[row][v] += value * weight[v];
    }
  }
}

// The shape of a micro-kernel: `vectors` of `lanes` columns. A row of the weight is `row_stride` floats;
// every sum is made of `chains` sums, over the input channels that leave the same remainder.
template <int lanes_, int vectors_, int row_stride_, int chains_ = 1>
struct PanelForm {
  static constexpr int lanes = lanes_;
  static constexpr int vectors = vectors_;
  static constexpr int row_stride = row_stride_;
  static constexpr int chains = chains_;
};

// One panel of the weight, and what its columns start from.
struct Panel {
  const float* weight;
  std::ptrdiff_t vector_stride;
  const float* bias;  // or null
};

// c[rows][vectors] = bias + a[rows][depth] * b[depth][vectors]. c's vectors are side by side.
template <class Form, int rows>
GHOSTSR_ALWAYS_INLINE void micro_kernel(const float* a, std::ptrdiff_t a_stride, const Panel& panel,
                                        int depth, float* c, std::ptrdiff_t c_stride) {
  constexpr int lanes = Form::lanes;
  constexpr int vectors = Form::vectors;
  constexpr int chains = Form::chains;
  Floats<lanes> sum[chains][rows][vectors] = {};
  if (panel.bias != nullptr) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const Floats<lanes> bias = load<lanes>(panel.bias + v * lanes);
#pragma GCC unroll 12
      for (int row = 0; row < rows; ++row) {
        sum[0][row][v] = bias;
      }
    }
  }
  const float* b = panel.weight;
  int k = 0;
#pragma GCC unroll 4
  for (; k + chains <= depth; k += chains) {
#pragma GCC unroll 2
    for (int chain = 0; chain < chains; ++chain) {
      multiply_add<lanes, rows, vectors>(a + k + chain, a_stride, b, panel.vector_stride, sum[chain]);
      b += Form::row_stride;
    }
  }
  if constexpr (chains > 1) {
    if (k < depth) {
      multiply_add<lanes, rows, vectors>(a + k, a_stride, b, panel.vector_stride, sum[0]);
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      if constexpr (chains > 1) {
        sum[0][row][v] += sum[1][row][v];
      }
      store<lanes>(c + row * c_stride + v * lanes, sum[0][row][v]);
    }
  }
}

template <class Form, int rows = kKernelRows>
GHOSTSR_ALWAYS_INLINE void multiply_rows(int count, const float* a, std::ptrdiff_t a_stride,
                                         const Panel& panel, int depth, float* c, std::ptrdiff_t c_stride) {
  if constexpr (rows > 1) {
    if (count < rows) {
      multiply_rows<Form, rows - 1>(count, a, a_stride, panel, depth, c, c_stride);
      return;
    }
  }
  micro_kernel<Form, rows>(a, a_stride, panel, depth, c, c_stride);
}

// All tiles by one panel (or one pair of panels), in steps of nearly equal size.
template <class Form>
[[gnu::noinline]] void multiply_panel(const Product& product, const float* input, const Panel& panel,
                                      float* output, PrefetchCursor& cursor, std::ptrdiff_t lines) {
  const int steps = (product.tiles + kKernelRows - 1) / kKernelRows;
  const int least = product.tiles / steps;
  const int larger_steps = product.tiles % steps;
  for (int step = 0; step < steps; ++step) {
    const int tiles = step < larger_steps ? least + 1 : least;
    cursor.advance(lines);
    multiply_rows<Form>(tiles, input, product.input.row_stride, panel, product.in, output,
                        product.output.row_stride);
    input += tiles * product.input.row_stride;
    output += tiles * product.output.row_stride;
  }
}

static void multiply(const Product& product) {
  constexpr int kWidth = static_cast<int>(kPanelWidth);
  PrefetchCursor cursor(product.prefetch);
  const int calls = product.components * ((product.padded_out + kWidth - 1) / kWidth) *
                    ((product.tiles + kKernelRows - 1) / kKernelRows);
  const std::ptrdiff_t lines = (cursor.lines() + calls - 1) / calls;
  const std::ptrdiff_t panel_size = static_cast<std::ptrdiff_t>(product.in) * kWidth;

  for (int component = 0; component < product.components; ++component) {
    const float* input = product.input.data + component * product.input.component_stride;
    const float* weight =
        product.packed_weight + static_cast<std::ptrdiff_t>(component) * product.in * product.padded_out;
    float* output = product.output.data + component * product.output.component_stride;
    const auto bias_at = [&](int channel) __attribute__((always_inline)) {
      return product.bias == nullptr ? nullptr : product.bias + channel;
    };
    int channel = 0;
    if constexpr (kLanes == 16) {
      for (; channel + 2 * kWidth <= product.padded_out; channel += 2 * kWidth) {
        multiply_panel<PanelForm<16, 2, kWidth>>(product, input, {weight, panel_size, bias_at(channel)},
                                                 output + channel, cursor, 2 * lines);
        weight += 2 * panel_size;
      }
    }
    for (; channel + kWidth <= product.padded_out; channel += kWidth) {
      multiply_panel<PanelForm<kLanes, kWidth / kLanes, kWidth>>(
          product, input, {weight, kLanes, bias_at(channel)}, output + channel, cursor, lines);
      weight += panel_size;
    }
    if (channel < product.padded_out) {
      multiply_panel<PanelForm<kGroupLanes, 8 / kGroupLanes, 8, kNarrowChains>>(
          product, input, {weight, kGroupLanes, bias_at(channel)}, output + channel, cursor, lines);
    }
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
