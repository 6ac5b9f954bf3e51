// Convolutions in bfloat16 as products of tiles, with sums in float.
//
// A tile of the input is sixteen neighbouring pixels of a row, and of each the channels of itself and of the
// pixels after it, which lie side by side: the kernel's row of three pixels is one run of 3 * channels
// inputs.
#pragma once

#include "core/fused/kernels/floats.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// The share of what is to be fetched that falls to one step.
struct Prefetch {
  const char* next;
  std::ptrdiff_t step_bytes;
};

// Tiles of pixels whose sums are kept in registers, for one panel of output channels.
inline constexpr int kMostTiles = 4;

#if defined(__AMX_BF16__)

inline constexpr bool kHasTiles = true;

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Not in the function that loads it: GCC 12 takes it for read up to its eighth byte.
static constexpr TileConfiguration kTileConfiguration;

// The intrinsics take the register as a literal.
template <int tile>
GHOSTSR_ALWAYS_INLINE void store_tile(float* to, std::ptrdiff_t stride) {
  const std::ptrdiff_t bytes = stride * static_cast<std::ptrdiff_t>(sizeof(float));
  if constexpr (tile == 0) {
    _tile_stored(0, to, bytes);
  } else if constexpr (tile == 1) {
    _tile_stored(1, to, bytes);
  } else if constexpr (tile == 2) {
    _tile_stored(2, to, bytes);
  } else {
    _tile_stored(3, to, bytes);
  }
}

// The last panel may be half as wide as a tile.
template <int tile>
GHOSTSR_ALWAYS_INLINE void store_sums(float* to, std::ptrdiff_t stride, int width) {
  if (width >= kTileOutputs) {
    store_tile<tile>(to, stride);
    return;
  }
  alignas(64) float sums[kTilePixels * kTileOutputs];
  store_tile<tile>(sums, kTileOutputs);
  for (int pixel = 0; pixel < kTilePixels; ++pixel) {
    store<kGroup>(to + pixel * stride, load<kGroup>(sums + pixel * kTileOutputs));
  }
}

template <int tiles>
[[gnu::noinline]] void multiply_panel(const TileProduct& product, const BFloat16* weight, int first_tile,
                                      int panel, Prefetch& prefetch) {
  const std::ptrdiff_t bytes = product.pixel_stride * static_cast<std::ptrdiff_t>(sizeof(BFloat16));
  const std::ptrdiff_t tile_elements = kTilePixels * product.pixel_stride;
  const float* bias = product.bias + panel;
  // Each row is the bias.
  _tile_loadd(0, bias, 0);
  if constexpr (tiles > 1) {
    _tile_loadd(1, bias, 0);
  }
  if constexpr (tiles > 2) {
    _tile_loadd(2, bias, 0);
  }
  if constexpr (tiles > 3) {
    _tile_loadd(3, bias, 0);
  }
  for (int row = 0; row < product.row_count; ++row) {
    const BFloat16* from = product.rows[row] + first_tile * tile_elements;
    for (int step = 0; step < product.steps; ++step) {
      _tile_loadd(7, weight, 64);
      _tile_loadd(4, from, bytes);
      _tile_dpbf16ps(0, 4, 7);
      if constexpr (tiles > 1) {
        _tile_loadd(5, from + tile_elements, bytes);
        _tile_dpbf16ps(1, 5, 7);
      }
      if constexpr (tiles > 2) {
        _tile_loadd(6, from + 2 * tile_elements, bytes);
        _tile_dpbf16ps(2, 6, 7);
      }
      if constexpr (tiles > 3) {
        _tile_loadd(4, from + 3 * tile_elements, bytes);
        _tile_dpbf16ps(3, 4, 7);
      }
      from += kTileInputs;
      weight += kTileElements;
      const char* const fetched = prefetch.next + prefetch.step_bytes;
      for (; prefetch.next < fetched; prefetch.next += 64) {
        __builtin_prefetch(prefetch.next, 0, 2);
      }
    }
  }
  const std::ptrdiff_t stride = product.output_stride;
  const int width = product.padded_out - panel;
  float* to = product.output + first_tile * kTilePixels * stride + panel;
  store_sums<0>(to, stride, width);
  if constexpr (tiles > 1) {
    store_sums<1>(to + kTilePixels * stride, stride, width);
  }
  if constexpr (tiles > 2) {
    store_sums<2>(to + 2 * kTilePixels * stride, stride, width);
  }
  if constexpr (tiles > 3) {
    store_sums<3>(to + 3 * kTilePixels * stride, stride, width);
  }
}

#else

inline constexpr bool kHasTiles = false;

template <int tiles>
[[gnu::noinline]] void multiply_panel(const TileProduct& product, const BFloat16* weight, int first_tile,
                                      int panel, Prefetch& /*prefetch*/) {
  constexpr int kWidth = kGroupLanes;
  const int width = product.padded_out - panel < kTileOutputs ? product.padded_out - panel : kTileOutputs;
  for (int pixel = first_tile * kTilePixels; pixel < (first_tile + tiles) * kTilePixels; ++pixel) {
    for (int channel = 0; channel < width; channel += kWidth) {
      Floats<kWidth> sum = load<kWidth>(product.bias + panel + channel);
      const BFloat16* pairs = weight + 2 * channel;
      for (int row = 0; row < product.row_count; ++row) {
        const BFloat16* from = product.rows[row] + pixel * product.pixel_stride;
        for (int input = 0; input < product.steps * kTileInputs; input += 2) {
          // Two numbers of bfloat16 lie in one of 32 bits, the first in its lower half.
          const auto both = load_raw<kWidth>(reinterpret_cast<const uint32_t*>(pairs));
          sum += static_cast<float>(from[input]) * reinterpret_cast<Floats<kWidth> >(both << 16U);
          sum += static_cast<float>(from[input + 1]) * reinterpret_cast<Floats<kWidth> >(both & 0xffff0000U);
          pairs += 2 * kTileOutputs;
        }
      }
      store<kWidth>(product.output + pixel * product.output_stride + panel + channel, sum);
    }
  }
}

#endif

static void multiply_tiles(const TileProduct& product) {
#if defined(__AMX_BF16__)
  _tile_loadconfig(&kTileConfiguration);
#endif
  const std::ptrdiff_t panel_elements = std::ptrdiff_t{product.row_count} * product.steps * kTileElements;
  // Blocks of about the same size, none of which leaves most registers empty.
  const int blocks = (product.tiles + kMostTiles - 1) / kMostTiles;
  const std::ptrdiff_t panels = (product.padded_out + kTileOutputs - 1) / kTileOutputs;
  const std::ptrdiff_t lines = (product.prefetch_bytes + 63) / 64;
  const std::ptrdiff_t steps = blocks * panels * product.row_count * product.steps;
  Prefetch prefetch{product.prefetch, (lines + steps - 1) / steps * 64};
  for (int block = 0; block < blocks; ++block) {
    const int first = product.tiles * block / blocks;
    const int tiles = product.tiles * (block + 1) / blocks - first;
    const BFloat16* weight = product.packed_weight;
    for (int panel = 0; panel < product.padded_out; panel += kTileOutputs) {
      if (tiles == 4) {
        multiply_panel<4>(product, weight, first, panel, prefetch);
      } else if (tiles == 3) {
        multiply_panel<3>(product, weight, first, panel, prefetch);
      } else if (tiles == 2) {
        multiply_panel<2>(product, weight, first, panel, prefetch);
      } else {
        multiply_panel<1>(product, weight, first, panel, prefetch);
      }
      weight += panel_elements;
    }
  }
#if defined(__AMX_BF16__)
  _tile_release();
#endif
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
