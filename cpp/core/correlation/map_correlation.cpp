#include "core/correlation/map_correlation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <new>
#include <numbers>
#include <utility>
#include <vector>

#include "core/correlation/spectra.h"
#include "core/simd/kernels.h"

namespace ghostsr {
namespace {

// Positions whose products are summed in float32: enough that inverse transforms cost little beside the
// products, few enough that the spectra of a batch of tiles stay near the processor.
constexpr int64_t kBatchPositions = 65536;

constexpr std::align_val_t kCacheLine{64};

struct FreeAligned {
  void operator()(float* memory) const { ::operator delete[](memory, kCacheLine); }
};
using Floats = std::unique_ptr<float[], FreeAligned>;

Floats allocate(int64_t count) {
  const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
  return Floats(static_cast<float*>(::operator new[](bytes, kCacheLine)));
}

int64_t divide_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

// How the maps are cut. A tile of the first maps lies in the middle of a square of the second ones that
// reaches far enough around it for every lag.
struct Tiling {
  int64_t size;
  int64_t height;
  int64_t width;
  int64_t rows;
  int64_t columns;

  Tiling(const MapCorrelation& maps, int64_t tile_size)
      : size(tile_size),
        height(tile_size - 2 * maps.max_lag_y),
        width(tile_size - 2 * maps.max_lag_x),
        rows(height > 0 ? divide_up(maps.extent.height, height) : 0),
        columns(width > 0 ? divide_up(maps.extent.width, width) : 0) {}

  int64_t frequencies() const { return frequencies_before(size, size / 2 + 1); }
};

Tiling cheapest_tiling(const MapCorrelation& maps) {
  const Tiling small(maps, kSmallTile);
  const Tiling large(maps, kLargeTile);
  if (small.height <= 0 || small.width <= 0) {
    return large;
  }
  const auto cost = [](const Tiling& tiling) { return tiling.rows * tiling.columns * tiling.frequencies(); };
  return cost(small) <= cost(large) ? small : large;
}

struct Roots {
  std::array<float, kLargeTile> cosine;
  std::array<float, kLargeTile> sine;

  explicit Roots(int64_t size) {
    for (int64_t index = 0; index < size; ++index) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(index) / static_cast<double>(size);
      cosine[index] = static_cast<float>(std::cos(angle));
      sine[index] = static_cast<float>(std::sin(angle));
    }
    // What rounding leaves of zero would let the imaginary parts of half columns in.
    cosine[size / 4] = cosine[3 * size / 4] = 0.0F;
    sine[0] = sine[size / 2] = 0.0F;
  }
};

class Correlator {
 public:
  Correlator(const MapCorrelation& maps, ParallelFor parallel)
      : maps_(maps),
        parallel_(parallel),
        tiling_(cheapest_tiling(maps)),
        roots_(tiling_.size),
        grid_{tiling_.size, roots_.cosine.data(), roots_.sine.data()},
        symmetric_(maps.first == maps.second && maps.first_channels == maps.second_channels),
        tiles_(maps.extent.batch * tiling_.rows * tiling_.columns),
        batch_(std::min(tiles_, kBatchPositions / (tiling_.size * tiling_.size))),
        // Odd in cache lines, so that the frequencies of a tile do not all map to the same few sets.
        frequency_stride_((batch_ | 1) * kSpectrumEntry),
        block_stride_(tiling_.frequencies() * frequency_stride_),
        first_blocks_(divide_up(maps.first_channels, kGroup)),
        second_blocks_(divide_up(maps.second_channels, kGroup)),
        first_(allocate(first_blocks_ * block_stride_)),
        second_(allocate(second_blocks_ * block_stride_)) {
    for (int64_t first = 0; first < first_blocks_; ++first) {
      for (int64_t second = symmetric_ ? first : 0; second < second_blocks_; ++second) {
        pairs_.emplace_back(first, second);
      }
    }
    sums_.resize(pairs_.size() * pair_sums());
  }

  void run() {
    for (int64_t begin = 0; begin < tiles_; begin += batch_) {
      const int64_t count = std::min(batch_, tiles_ - begin);
      transform(begin, count);
      multiply(count);
    }
  }

  void write(double* sums) const {
    for (std::size_t pair = 0; pair < pairs_.size(); ++pair) {
      write_pair(pairs_[pair].first, pairs_[pair].second, sums_.data() + pair * pair_sums(), sums);
    }
  }

 private:
  int64_t lags() const { return (2 * maps_.max_lag_y + 1) * (2 * maps_.max_lag_x + 1); }
  int64_t pair_sums() const { return lags() * kGroup * kGroup; }

  void transform(int64_t begin, int64_t count) {
    const int64_t blocks = first_blocks_ + second_blocks_;
    parallel_(blocks * count, [&](int64_t task, int64_t end) {
      const Floats workspace = allocate(spectrum_workspace(tiling_.size));
      for (; task < end; ++task) {
        const int64_t block = task / count;
        const int64_t tile = task % count;
        const bool is_first = block < first_blocks_;
        const int64_t own_block = is_first ? block : block - first_blocks_;
        float* spectrum =
            (is_first ? first_ : second_).get() + own_block * block_stride_ + tile * kSpectrumEntry;
        const TileWindow tile_window = window(begin + tile, own_block, is_first);
        kernels().spectrum.transform_tile(grid_, tile_window, workspace.get(), spectrum, frequency_stride_);
      }
    });
  }

  TileWindow window(int64_t tile, int64_t block, bool is_first) const {
    const auto [batch, height, width] = maps_.extent;
    const int64_t per_map = tiling_.rows * tiling_.columns;
    const int64_t row = tile % per_map / tiling_.columns * tiling_.height;
    const int64_t column = tile % tiling_.columns * tiling_.width;
    const int64_t channels = is_first ? maps_.first_channels : maps_.second_channels;
    const int64_t channel = block * kGroup;
    TileWindow result;
    result.maps =
        (is_first ? maps_.first : maps_.second) + (tile / per_map * channels + channel) * height * width;
    result.channel_stride = height * width;
    result.row_stride = width;
    result.channels = std::min<int64_t>(kGroup, channels - channel);
    result.top = row - maps_.max_lag_y;
    result.left = column - maps_.max_lag_x;
    const int64_t around_y = is_first ? 0 : maps_.max_lag_y;
    const int64_t around_x = is_first ? 0 : maps_.max_lag_x;
    result.row_begin = std::max<int64_t>(0, row - around_y);
    result.row_end = std::min(height, row + tiling_.height + around_y);
    result.column_begin = std::max<int64_t>(0, column - around_x);
    result.column_end = std::min(width, column + tiling_.width + around_x);
    return result;
  }

  void multiply(int64_t count) {
    parallel_(static_cast<int64_t>(pairs_.size()), [&](int64_t begin, int64_t end) {
      // Column by column, so that the spectra of all pairs stay in the cache for one column.
      for (int64_t column = 0; column <= tiling_.size / 2; ++column) {
        const int64_t offset = frequencies_before(tiling_.size, column) * frequency_stride_;
        for (int64_t pair = begin; pair < end; ++pair) {
          const SpectrumColumn spectra{first_.get() + pairs_[pair].first * block_stride_ + offset,
                                       second_.get() + pairs_[pair].second * block_stride_ + offset,
                                       frequency_stride_,
                                       count,
                                       column,
                                       maps_.max_lag_y,
                                       maps_.max_lag_x};
          kernels().spectrum.add_column(grid_, spectra, sums_.data() + pair * pair_sums());
        }
      }
    });
  }

  void write_pair(int64_t first_block, int64_t second_block, const double* from, double* sums) const {
    constexpr int64_t kBlock = kGroup;
    const int64_t rows = std::min(kBlock, maps_.first_channels - first_block * kBlock);
    const int64_t columns = std::min(kBlock, maps_.second_channels - second_block * kBlock);
    for (int64_t lag = 0; lag < lags(); ++lag) {
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t column = 0; column < columns; ++column) {
          const int64_t i = first_block * kBlock + row;
          const int64_t j = second_block * kBlock + column;
          const double value = from[(lag * kBlock + row) * kBlock + column];
          if (!symmetric_) {
            at(sums, lag, i, j) = value;
          } else if (i < j || (i == j && lag <= lags() / 2)) {
            at(sums, lag, i, j) = value;
            at(sums, lags() - 1 - lag, j, i) = value;
          }
        }
      }
    }
  }

  double& at(double* sums, int64_t lag, int64_t i, int64_t j) const {
    return sums[(lag * maps_.first_channels + i) * maps_.second_channels + j];
  }

  const MapCorrelation& maps_;
  ParallelFor parallel_;
  Tiling tiling_;
  Roots roots_;
  SpectrumGrid grid_;
  bool symmetric_;
  int64_t tiles_;
  int64_t batch_;
  int64_t frequency_stride_;
  int64_t block_stride_;
  int64_t first_blocks_;
  int64_t second_blocks_;
  Floats first_;
  Floats second_;
  std::vector<std::pair<int64_t, int64_t>> pairs_;
  std::vector<double> sums_;
};

}  // namespace

void correlate_maps(const MapCorrelation& maps, double* sums, ParallelFor parallel) {
  if (maps.extent.batch * maps.extent.height * maps.extent.width == 0 || maps.first_channels == 0 ||
      maps.second_channels == 0) {
    const int64_t lags = (2 * maps.max_lag_y + 1) * (2 * maps.max_lag_x + 1);
    std::fill_n(sums, lags * maps.first_channels * maps.second_channels, 0.0);
    return;
  }
  Correlator correlator(maps, parallel);
  correlator.run();
  correlator.write(sums);
}

}  // namespace ghostsr
