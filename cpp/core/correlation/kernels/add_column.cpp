#include "core/correlation/spectra.h"
#include "core/simd/vector.h"

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

using L = Group<float>;

// Rows of the 8x8 products that are made at once: their complex accumulators leave room for the factors in
// sixteen registers, or in the thirty-two of AVX-512.
constexpr int kRows = kLanes == 16 ? 8 : 4;

struct Block {
  L re[kGroup];
  L im[kGroup];
};

// scale * sum over tiles of conj(first) * second', for some rows of the block.
[[gnu::always_inline]] inline void multiply(const float* first, const float* second, int64_t tiles,
                                            float scale, int row, Block& product) {
  L re[kRows] = {};
  L im[kRows] = {};
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const L second_re = load<kGroup>(second);
    const L second_im = load<kGroup>(second + kGroup);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float first_re = first[row + r];
      const float first_im = first[row + r + kGroup];
      re[r] += first_re * second_re;
      im[r] += first_re * second_im;
      re[r] += first_im * second_im;
      im[r] -= first_im * second_re;
    }
    first += kSpectrumEntry;
    second += kSpectrumEntry;
  }
  for (int r = 0; r < kRows; ++r) {
    product.re[row + r] = scale * re[r];
    product.im[row + r] = scale * im[r];
  }
}

[[gnu::always_inline]] inline int64_t wrapped(int64_t index, int64_t size) { return index & (size - 1); }

// The inverse transform along y at one lag, for some rows of the block.
[[gnu::always_inline]] inline void invert(const SpectrumGrid& grid, const Block* products, int64_t count,
                                          int64_t lag, int row, Block& result) {
  L re[kRows] = {};
  L im[kRows] = {};
  for (int64_t ky = 0; ky < count; ++ky) {
    const int64_t angle = wrapped(ky * lag, grid.size);
    const float c = grid.cosine[angle];
    const float s = grid.sine[angle];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const L product_re = products[ky].re[row + r];
      const L product_im = products[ky].im[row + r];
      re[r] += c * product_re;
      im[r] += c * product_im;
      re[r] -= s * product_im;
      im[r] += s * product_re;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    result.re[row + r] = re[r];
    result.im[row + r] = im[r];
  }
}

}  // namespace

void add_column(const SpectrumGrid& grid, const SpectrumColumn& column, double* sums) {
  const int64_t n = grid.size;
  const bool outer = column.column == 0 || column.column == n / 2;
  const int64_t count = column_frequencies(n, column.column);
  // Spectra are doubled, and a frequency stands for its conjugate too unless it is its own.
  const float own = 0.25F / static_cast<float>(n * n);
  Block products[kLargeTile];
  for (int64_t ky = 0; ky < count; ++ky) {
    const float scale = outer && (ky == 0 || ky == n / 2) ? own : 2 * own;
    for (int row = 0; row < kGroup; row += kRows) {
      multiply(column.first + ky * column.frequency_stride, column.second + ky * column.frequency_stride,
               column.tiles, scale, row, products[ky]);
    }
  }
  for (int64_t ly = -column.max_lag_y; ly <= column.max_lag_y; ++ly) {
    Block inverse;
    for (int row = 0; row < kGroup; row += kRows) {
      invert(grid, products, count, ly, row, inverse);
    }
    for (int64_t lx = -column.max_lag_x; lx <= column.max_lag_x; ++lx) {
      const int64_t angle = wrapped(column.column * lx, n);
      // In the outer columns the sine is zero: half of a column has no imaginary part to give.
      const float c = grid.cosine[angle];
      const float s = grid.sine[angle];
      for (int64_t row = 0; row < kGroup; ++row) {
        const L value = c * inverse.re[row] - s * inverse.im[row];
        store<kGroup>(sums, load<kGroup>(sums) + __builtin_convertvector(value, Group<double>));
        sums += kGroup;
      }
    }
  }
}

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
