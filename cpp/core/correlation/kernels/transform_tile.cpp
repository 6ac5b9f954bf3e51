#include "core/correlation/spectra.h"
#include "core/simd/vector.h"

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

using L = Group<float>;

struct Complex {
  L re;
  L im;
};

[[gnu::always_inline]] inline Complex turned(const SpectrumGrid& grid, int64_t index, Complex value) {
  const float c = grid.cosine[index];
  const float s = grid.sine[index];
  return {c * value.re + s * value.im, c * value.im - s * value.re};
}

// to[k] = sum over x of from[x * stride] * exp(-2 pi i k x / n), by decimation in time with radix 4. Step is
// the size of the whole transform over n.
template <int n, int step>
[[gnu::always_inline]] inline void fourier(const SpectrumGrid& grid, const Complex* from, int stride,
                                           Complex* to) {
  if constexpr (n == 1) {
    to[0] = from[0];
  } else if constexpr (n == 2) {
    to[0] = {from[0].re + from[stride].re, from[0].im + from[stride].im};
    to[1] = {from[0].re - from[stride].re, from[0].im - from[stride].im};
  } else {
    constexpr int kQuarter = n / 4;
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      fourier<kQuarter, 4 * step>(grid, from + part * stride, 4 * stride, to + part * kQuarter);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kQuarter; ++k) {
      const Complex a = to[k];
      Complex b = to[k + kQuarter];
      Complex c = to[k + 2 * kQuarter];
      Complex d = to[k + 3 * kQuarter];
      if (k > 0) {
        b = turned(grid, k * step, b);
        c = turned(grid, 2 * k * step, c);
        d = turned(grid, 3 * k * step, d);
      }
      const Complex even = {a.re + c.re, a.im + c.im};
      const Complex even_difference = {a.re - c.re, a.im - c.im};
      const Complex odd = {b.re + d.re, b.im + d.im};
      const Complex odd_difference = {b.re - d.re, b.im - d.im};
      to[k] = {even.re + odd.re, even.im + odd.im};
      to[k + kQuarter] = {even_difference.re + odd_difference.im, even_difference.im - odd_difference.re};
      to[k + 2 * kQuarter] = {even.re - odd.re, even.im - odd.im};
      to[k + 3 * kQuarter] = {even_difference.re - odd_difference.im, even_difference.im + odd_difference.re};
    }
  }
}

template <int n>
[[gnu::noinline]] void transform_line(const SpectrumGrid& grid, const Complex* from, Complex* to) {
  fourier<n, 1>(grid, from, 1, to);
}

struct Columns {
  int64_t begin;
  int64_t end;
};

// Row `y` of the tile into one part of `line`, which is zero elsewhere.
template <int n>
void load_row(const TileWindow& window, const float* const* maps, int64_t y, Columns columns,
              L Complex::* part, Complex* line) {
  const int64_t row = window.top + y;
  const bool read = row >= window.row_begin && row < window.row_end;
  for (int64_t x = 0; x < n; ++x) {
    const bool inside = read && x >= columns.begin && x < columns.end;
    line[x].*part = inside ? gather<float, kGroup>(maps, row * window.row_stride + window.left + x) : L{};
  }
}

template <int n>
void transform(const SpectrumGrid& grid, const TileWindow& window, Complex* rows, float* spectrum,
               int64_t frequency_stride) {
  const float* maps[kGroup];
  for (int64_t lane = 0; lane < kGroup; ++lane) {
    const int64_t channel = lane < window.channels ? lane : window.channels - 1;
    maps[lane] = window.maps + channel * window.channel_stride;
  }
  const Columns columns = {window.column_begin - window.left, window.column_end - window.left};
  Complex line[n];
  Complex frequencies[n];
  // Two real rows are transformed as one complex row: their spectra are its even and odd parts.
  for (int64_t y = 0; y < n; y += 2) {
    load_row<n>(window, maps, y, columns, &Complex::re, line);
    load_row<n>(window, maps, y + 1, columns, &Complex::im, line);
    transform_line<n>(grid, line, frequencies);
    for (int64_t kx = 0; kx <= n / 2; ++kx) {
      const Complex here = frequencies[kx];
      const Complex opposite = frequencies[(n - kx) % n];
      rows[kx * n + y] = {here.re + opposite.re, here.im - opposite.im};
      rows[kx * n + y + 1] = {here.im + opposite.im, opposite.re - here.re};
    }
  }
  for (int64_t kx = 0; kx <= n / 2; ++kx) {
    transform_line<n>(grid, rows + kx * n, frequencies);
    const int64_t count = column_frequencies(n, kx);
    for (int64_t ky = 0; ky < count; ++ky) {
      store<kGroup>(spectrum, frequencies[ky].re);
      store<kGroup>(spectrum + kGroup, frequencies[ky].im);
      spectrum += frequency_stride;
    }
  }
}

}  // namespace

void transform_tile(const SpectrumGrid& grid, const TileWindow& window, float* workspace, float* spectrum,
                    int64_t frequency_stride) {
  auto* rows = reinterpret_cast<Complex*>(workspace);
  if (grid.size == kSmallTile) {
    transform<kSmallTile>(grid, window, rows, spectrum, frequency_stride);
  } else {
    transform<kLargeTile>(grid, window, rows, spectrum, frequency_stride);
  }
}

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
