#include "core/winograd/blocking.h"

#include <algorithm>

#include "core/winograd/packed_weight.h"
#include "core/winograd/sizes.h"

namespace ghostsr::winograd {
namespace {

// Floats of V and M together that leave room for the weights in a second-level cache of 512 KiB.
constexpr std::int64_t kBlockFloats = 40 * 1024;

// Bounds of a block in tiles: enough to read the weights seldom, few enough to stay in the cache.
constexpr std::int64_t kFewestTiles = 12;
constexpr std::int64_t kMostTiles = 24;

// Strips for each worker: when another process takes a core, the others take over its share.
constexpr std::int64_t kStripsPerWorker = 4;

// Strips shorter than this would spend too much on their boundaries.
constexpr std::int64_t kFewestTileRows = 2;

// Floats of the epilogue's chunk, half of a first-level cache of 32 KiB with what it is assembled from.
constexpr std::int64_t kChunkFloats = 2048;
constexpr std::int64_t kFewestChunkPixels = 8;

std::size_t take(std::size_t& cursor, std::size_t floats) {
  const std::size_t offset = cursor;
  cursor += (floats + kLineFloats - 1) / kLineFloats * kLineFloats;
  return offset;
}

}  // namespace

Blocking make_blocking(const Shape& shape, int reach, int workers, int kernel_rows) {
  const std::int64_t out_width = shape.out_width();
  const std::int64_t tile_rows = ceil_div(shape.out_height(), 4);
  const std::int64_t tile_columns = ceil_div(out_width, 4);
  const std::int64_t padded_in = round_up(shape.in_channels, kChannelPadding);
  const std::int64_t padded_intrinsic = round_up(shape.intrinsic, kChannelPadding);

  const std::int64_t fitting = kBlockFloats / (kComponents * (padded_in + padded_intrinsic));
  const std::int64_t block_tiles =
      round_up(std::clamp(fitting, kFewestTiles, kMostTiles), static_cast<std::int64_t>(kernel_rows));
  const std::int64_t band_rows = std::clamp<std::int64_t>(block_tiles / tile_columns, 1, tile_rows);

  // A strip must hold the 2 * reach rows that each of its boundaries needs from it.
  const std::int64_t fewest = std::max({kFewestTileRows, band_rows, ceil_div(reach, 2)});
  const std::int64_t wanted =
      workers > 1 ? ceil_div(kStripsPerWorker * workers, std::max<std::int64_t>(shape.batch, 1)) : 1;
  const std::int64_t strips =
      std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(tile_rows / fewest, 1));

  Blocking blocking;
  blocking.tile_rows = static_cast<int>(tile_rows);
  blocking.tile_columns = static_cast<int>(tile_columns);
  blocking.strips = static_cast<int>(strips);
  blocking.band_rows = static_cast<int>(band_rows);
  blocking.block_tiles = static_cast<int>(std::min(block_tiles, band_rows * tile_columns));
  blocking.padded_in = static_cast<int>(padded_in);
  blocking.padded_intrinsic = static_cast<int>(padded_intrinsic);
  blocking.reach = reach;
  blocking.ring_rows = static_cast<int>(round_up(4 * band_rows + 2 * reach, 4));
  blocking.row_floats = (reach + std::max(4 * tile_columns, out_width + reach)) * padded_intrinsic;
  // The odd line keeps the components from falling into the same cache sets.
  blocking.input_component_floats = blocking.block_tiles * padded_in + static_cast<std::int64_t>(kLineFloats);
  blocking.output_component_floats =
      blocking.block_tiles * padded_intrinsic + static_cast<std::int64_t>(kLineFloats);
  blocking.chunk_pixels = static_cast<int>(
      std::min(out_width, std::max(kChunkFloats / shape.out_channels(), kFewestChunkPixels)));
  return blocking;
}

WorkspaceLayout make_workspace_layout(const Shape& shape, const Blocking& blocking, int workers) {
  const auto size = [](std::int64_t floats) { return static_cast<std::size_t>(floats); };
  const std::int64_t boundaries = blocking.boundaries(shape.batch);
  WorkspaceLayout layout;

  std::size_t shared = 0;
  layout.bias = take(shared, size(blocking.padded_intrinsic));
  layout.zero_row = take(shared, size(blocking.row_floats));
  layout.boundary_rows = take(shared, size(boundaries * 4 * blocking.reach * blocking.row_floats));
  layout.boundary_arrivals = take(shared, size(boundaries));
  layout.workers = shared;

  std::size_t worker = 0;
  layout.patch = take(worker, size(kComponents) * size(blocking.padded_in));
  layout.input_components = take(worker, size(kComponents * blocking.input_component_floats));
  layout.output_components = take(worker, size(kComponents * blocking.output_component_floats));
  layout.ring = take(worker, size(blocking.ring_rows * blocking.row_floats));
  layout.chunk = take(worker, size(blocking.chunk_pixels * shape.out_channels() + kChannelPadding));
  layout.worker_floats = worker;

  layout.total = shared + worker * static_cast<std::size_t>(workers);
  return layout;
}

}  // namespace ghostsr::winograd
