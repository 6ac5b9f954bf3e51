// Real Fourier transforms of square tiles, eight channels at a time, and their products.
//
// Of the frequencies (ky, kx) of an n x n tile those with kx > n/2 follow from the others, and so do those
// with ky > n/2 in the columns kx = 0 and kx = n/2. The rest is stored column by column.
#pragma once

#include <cstdint>

#include "core/simd/block_sizes.h"

namespace ghostsr {

// Floats of one frequency of one tile: the real parts of eight channels, then the imaginary parts.
constexpr int64_t kSpectrumEntry = 2 * kGroup;

constexpr int64_t kSmallTile = 16;
constexpr int64_t kLargeTile = 32;

struct SpectrumGrid {
  int64_t size;         // n, kSmallTile or kLargeTile
  const float* cosine;  // [n], of 2 pi i / n
  const float* sine;    // [n]
};

constexpr int64_t column_frequencies(int64_t size, int64_t column) {
  return column == 0 || column == size / 2 ? size / 2 + 1 : size;
}

// Frequencies in the columns before `column`; with column = n/2 + 1, in all of them.
constexpr int64_t frequencies_before(int64_t size, int64_t column) {
  if (column == 0) {
    return 0;
  }
  const int64_t inner = (column > size / 2 ? size / 2 : column) - 1;
  return size / 2 + 1 + inner * size + (column > size / 2 ? size / 2 + 1 : 0);
}

// A tile in a map. Positions of the tile outside of the rows and columns that are read count as zero.
struct TileWindow {
  const float* maps;  // the first channel's map
  int64_t channel_stride;
  int64_t row_stride;
  int64_t channels;  // 1..8; what the rest of the eight hold means nothing
  int64_t top;       // where the tile begins in the map; may be negative
  int64_t left;
  int64_t row_begin;  // rows of the tile that are read, in the map
  int64_t row_end;
  int64_t column_begin;
  int64_t column_end;
};

// Floats of workspace for transform_tile.
constexpr int64_t spectrum_workspace(int64_t size) { return (size / 2 + 1) * size * kSpectrumEntry; }

// Tiles of eight channels each by one column of frequencies.
struct SpectrumColumn {
  const float* first;  // [frequency of the column][tile][kSpectrumEntry]
  const float* second;
  int64_t frequency_stride;
  int64_t tiles;
  int64_t column;
  int64_t max_lag_y;
  int64_t max_lag_x;
};

struct SpectrumKernels {
  // Writes twice the transform, entry by entry, `frequency_stride` floats apart.
  void (*transform_tile)(const SpectrumGrid& grid, const TileWindow& window, float* workspace,
                         float* spectrum, int64_t frequency_stride);
  // Adds what the column contributes to the correlation to sums[ly][lx][kGroup][kGroup]; both spectra are
  // twice the transforms.
  void (*add_column)(const SpectrumGrid& grid, const SpectrumColumn& column, double* sums);
};

}  // namespace ghostsr
