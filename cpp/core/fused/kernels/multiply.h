// Matrix products whose operands stay in the second-level cache: M = V U for each of the 36 components, or a
// whole 1x1 convolution.
#pragma once

#include <type_traits>

#include "core/fused/kernels/floats.h"
#include "core/fused/packed_weight.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// Accumulators fill the registers: 6 x 2 of AVX2's 16, 12 x 2 of AVX-512's 32, and of the portable level's 2
// x 4 of 16 (x86-64) with the vectors of the weight beside them.
inline constexpr int kKernelRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 2;

// A panel of eight columns makes half as many sums, too few to hide their latency: each is then made of two,
// over the even and the odd rows of the weight.
inline constexpr int kNarrowChains = 2;

// Some rows of a matrix, read side by side. Every four have a pointer of their own, from which an address is
// a base and a scaled stride: offsets from one pointer would need more registers than there are, and reading
// them back from the stack takes as many loads as the rows themselves.
template <int rows>
class RowReader {
 public:
  GHOSTSR_ALWAYS_INLINE RowReader(const float* first, std::ptrdiff_t stride)
      : stride_(stride), three_strides_(3 * stride) {
#pragma GCC unroll 3
    for (int quad = 0; quad < kQuads; ++quad) {
      quads_[quad] = first + 4 * quad * stride;
      // Otherwise the compiler goes back to one pointer.
      asm("" : "+r"(quads_[quad]));
    }
    asm("" : "+r"(three_strides_));
  }

  GHOSTSR_ALWAYS_INLINE const float* at(int row, std::ptrdiff_t column) const {
    return quads_[row / 4] + (column + (row % 4 == 3 ? three_strides_ : row % 4 * stride_));
  }

 private:
  static constexpr int kQuads = (rows + 3) / 4;
  const float* quads_[kQuads];
  std::ptrdiff_t stride_;
  std::ptrdiff_t three_strides_;
};

// sum[row][v] += a[row] * weight[v] for one input channel.
template <int lanes, int rows, int vectors>
GHOSTSR_ALWAYS_INLINE void multiply_add(const RowReader<rows>& a, std::ptrdiff_t column, const float* b,
                                        std::ptrdiff_t vector_stride, Floats<lanes> (&sum)[rows][vectors]) {
  Floats<lanes> weight[vectors];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    weight[v] = load<lanes>(b + v * vector_stride);
  }
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row) {
    const float value = *a.at(row, column);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sum[row][v] += value * weight[v];
    }
  }
}

// One panel of the weight, and what its columns start from.
struct Panel {
  const float* weight;
  std::ptrdiff_t vector_stride;
  const float* bias;  // or null
};

// The shape of a micro-kernel: `vectors` of `lanes` columns. A row of the weight is `row_stride` floats;
// every sum is made of `chains` sums, over the input channels that leave the same remainder.
template <int lanes_, int vectors_, int row_stride_, int chains_ = 1>
struct PanelForm {
  static constexpr int lanes = lanes_;
  static constexpr int vectors = vectors_;
  static constexpr int row_stride = row_stride_;
  static constexpr int chains = chains_;

  // c[rows][vectors] = bias + a[rows][depth] * b[depth][vectors]. c's vectors are side by side.
  template <int rows>
  GHOSTSR_ALWAYS_INLINE static void multiply(const float* a, std::ptrdiff_t a_stride, const Panel& panel,
                                             int depth, float* c, std::ptrdiff_t c_stride) {
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
    const RowReader<rows> input(a, a_stride);
    const float* b = panel.weight;
    int k = 0;
#pragma GCC unroll 4
    for (; k + chains <= depth; k += chains) {
#pragma GCC unroll 2
      for (int chain = 0; chain < chains; ++chain) {
        multiply_add<lanes, rows, vectors>(input, k + chain, b, panel.vector_stride, sum[chain]);
        b += row_stride;
      }
    }
    if constexpr (chains > 1) {
      if (k < depth) {
        multiply_add<lanes, rows, vectors>(input, k, b, panel.vector_stride, sum[0]);
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
};

// The product with a panel of 8 or 16 columns, where vectors hold sixteen lanes. One value of the input for
// every vector of sums would leave the units that multiply waiting for loads. So two vectors hold `parts`
// sums for each column side by side, over the input channels that leave the same remainder, and one load
// brings `parts` values of a row.
template <int width>
struct NarrowForm {
  static constexpr int kWide = 16;
  static constexpr int parts = 2 * kWide / width;

  using Sums = Floats<kWide>[2];

  // `parts` floats, again and again.
  GHOSTSR_ALWAYS_INLINE static Floats<kWide> repeat(const float* from) {
    if constexpr (parts == 2) {
      using Pairs = Vector<int64_t, kWide / 2>;
      int64_t pair = 0;
      __builtin_memcpy(&pair, from, sizeof(pair));
      return reinterpret_cast<Floats<kWide>>(Pairs{} | pair);
    } else {
      return load_repeated_four(from);
    }
  }

  // `parts` rows of the weight, column by column.
  GHOSTSR_ALWAYS_INLINE static void load_weight(const float* from, Sums& weight) {
    const Floats<kWide> first = load<kWide>(from);
    const Floats<kWide> second = load<kWide>(from + kWide);
    if constexpr (parts == 2) {
      weight[0] =
          __builtin_shufflevector(first, second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      weight[1] = __builtin_shufflevector(first, second, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                          15, 31);
    } else {
      weight[0] =
          __builtin_shufflevector(first, second, 0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
      weight[1] =
          __builtin_shufflevector(first, second, 4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31);
    }
  }

  // The sums of all parts, column by column.
  GHOSTSR_ALWAYS_INLINE static Floats<width> total(const Sums& sum) {
    const Floats<kWide> halves =
        __builtin_shufflevector(sum[0], sum[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
        __builtin_shufflevector(sum[0], sum[1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    if constexpr (parts == 2) {
      return halves;
    } else {
      const Floats<kWide> apart =
          __builtin_shufflevector(halves, halves, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
      return __builtin_shufflevector(apart, apart, 0, 1, 2, 3, 4, 5, 6, 7) +
             __builtin_shufflevector(apart, apart, 8, 9, 10, 11, 12, 13, 14, 15);
    }
  }

  template <int rows>
  GHOSTSR_ALWAYS_INLINE static void multiply(const float* a, std::ptrdiff_t a_stride, const Panel& panel,
                                             int depth, float* c, std::ptrdiff_t c_stride) {
    Sums sum[rows] = {};
    const auto add = [&](const auto& row_at, const float* b) __attribute__((always_inline)) {
      Sums weight;
      load_weight(b, weight);
#pragma GCC unroll 12
      for (int row = 0; row < rows; ++row) {
        const Floats<kWide> value = repeat(row_at(row));
        sum[row][0] += value * weight[0];
        sum[row][1] += value * weight[1];
      }
    };
    const RowReader<rows> input(a, a_stride);
    const float* b = panel.weight;
    int k = 0;
#pragma GCC unroll 2
    for (; k + parts <= depth; k += parts, b += parts * width) {
      add([&](int row) __attribute__((always_inline)) { return input.at(row, k); }, b);
    }
    if (k < depth) {
      // What the last rows of the weight are short of is zero.
      const int left = depth - k;
      float values[rows][parts] = {};
      float rest[parts * width] = {};
      for (int part = 0; part < left; ++part) {
        for (int row = 0; row < rows; ++row) {
          values[row][part] = *input.at(row, k + part);
        }
        store<width>(rest + part * width, load<width>(b + part * width));
      }
      add([&](int row) __attribute__((always_inline)) { return values[row]; }, rest);
    }
    const Floats<width> bias = panel.bias == nullptr ? Floats<width>{} : load<width>(panel.bias);
#pragma GCC unroll 12
    for (int row = 0; row < rows; ++row) {
      store<width>(c + row * c_stride, total(sum[row]) + bias);
    }
  }
};

template <class Form, int rows = kKernelRows>
GHOSTSR_ALWAYS_INLINE void multiply_rows(int count, const float* a, std::ptrdiff_t a_stride,
                                         const Panel& panel, int depth, float* c, std::ptrdiff_t c_stride) {
  if constexpr (rows > 1) {
    if (count < rows) {
      multiply_rows<Form, rows - 1>(count, a, a_stride, panel, depth, c, c_stride);
      return;
    }
  }
  Form::template multiply<rows>(a, a_stride, panel, depth, c, c_stride);
}

// All tiles by one panel (or one pair of panels), in steps of nearly equal size.
template <class Form>
[[gnu::noinline]] void multiply_panel(const Product& product, const float* input, const Panel& panel,
                                      float* output) {
  const int steps = (product.tiles + kKernelRows - 1) / kKernelRows;
  const int least = product.tiles / steps;
  const int larger_steps = product.tiles % steps;
  for (int step = 0; step < steps; ++step) {
    const int tiles = step < larger_steps ? least + 1 : least;
    multiply_rows<Form>(tiles, input, product.input.row_stride, panel, product.in, output,
                        product.output.row_stride);
    input += tiles * product.input.row_stride;
    output += tiles * product.output.row_stride;
  }
}

static void multiply(const Product& product) {
  constexpr int kWidth = static_cast<int>(kPanelWidth);
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
                                                 output + channel);
        weight += 2 * panel_size;
      }
    }
    using Single =
        std::conditional_t<kLanes == 16, NarrowForm<kWidth>, PanelForm<kLanes, kWidth / kLanes, kWidth>>;
    using Half = std::conditional_t<kLanes == 16, NarrowForm<kGroup>,
                                    PanelForm<kGroupLanes, kGroup / kGroupLanes, kGroup, kNarrowChains>>;
    for (; channel + kWidth <= product.padded_out; channel += kWidth) {
      multiply_panel<Single>(product, input, {weight, kLanes, bias_at(channel)}, output + channel);
      weight += panel_size;
    }
    if (channel < product.padded_out) {
      multiply_panel<Half>(product, input, {weight, kGroupLanes, bias_at(channel)}, output + channel);
    }
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
