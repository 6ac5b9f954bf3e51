#include "core/fused/blocking.h"

#include <algorithm>

#include "core/fused/packed_weight.h"
#include "core/fused/rounding.h"
#include "core/fused/stages.h"

namespace ghostsr::fused {
namespace {

// Floats of V and M together that leave room for the weights in a second-level cache of 512 KiB.
constexpr std::int64_t kBlockFloats = std::int64_t{40} * 1024;

// Bounds of a block in tiles: enough to read the weights seldom, few enough to stay in the cache.
constexpr std::int64_t kFewestTiles = 12;
constexpr std::int64_t kMostTiles = 36;
constexpr std::int64_t kFewestPixels = 48;
constexpr std::int64_t kMostPixels = 384;

// Strips for each worker: when another process takes a core, the others take over its share.
constexpr std::int64_t kStripsPerWorker = 4;

// Strips of fewer rows would spend too much on their boundaries.
constexpr std::int64_t kFewestRows = 8;

// Floats of the epilogue's chunk, half of a first-level cache of 32 KiB with what it is assembled from.
constexpr std::int64_t kChunkFloats = 2048;
constexpr std::int64_t kFewestChunkPixels = 8;

std::size_t take(std::size_t& cursor, std::size_t floats) {
  const std::size_t offset = cursor;
  cursor += (floats + kLineFloats - 1) / kLineFloats * kLineFloats;
  return offset;
}

}  // namespace

Blocking make_blocking(const Shape& shape, Method method, int radius, int workers, int kernel_rows) {
  const bool winograd = method == Method::winograd;
  const bool direct = method == Method::direct;
  const std::int64_t tile = winograd ? 4 : 1;
  const std::int64_t tile_width = direct ? kTilePixels : tile;
  const std::int64_t out_width = shape.out_width();
  const std::int64_t tile_rows = ceil_div(shape.out_height(), tile);
  const std::int64_t tile_columns = ceil_div(out_width, tile_width);
  const WeightSize weight = shape.weight_size();
  const std::int64_t padded_in = round_up(weight.in, kChannelPadding);
  const std::int64_t padded_group = round_up(weight.out, kChannelPadding);
  const std::int64_t padded_intrinsic = shape.groups * padded_group;

  const std::int64_t tile_floats =
      winograd ? kComponents * (padded_in + padded_group) : shape.in_channels + padded_intrinsic;
  const std::int64_t fitting = kBlockFloats / tile_floats;
  const std::int64_t block_tiles = direct
                                       ? tile_columns
                                       : round_up(winograd ? std::clamp(fitting, kFewestTiles, kMostTiles)
                                                           : std::clamp(fitting, kFewestPixels, kMostPixels),
                                                  static_cast<std::int64_t>(kernel_rows));
  const std::int64_t band_rows =
      winograd ? std::clamp<std::int64_t>(block_tiles / tile_columns, 1, tile_rows) : 1;

  // A strip must hold the 2 * radius rows that each of its boundaries needs from it.
  const std::int64_t fewest =
      std::max({ceil_div(kFewestRows, tile), band_rows, ceil_div(2 * std::int64_t{radius}, tile)});
  const std::int64_t wanted =
      workers > 1 ? ceil_div(kStripsPerWorker * workers, std::max<std::int64_t>(shape.batch, 1)) : 1;
  const std::int64_t strips =
      std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(tile_rows / fewest, 1));

  Blocking blocking;
  blocking.tile = static_cast<int>(tile);
  blocking.tile_width = static_cast<int>(tile_width);
  blocking.tile_rows = static_cast<int>(tile_rows);
  blocking.tile_columns = static_cast<int>(tile_columns);
  blocking.strips = static_cast<int>(strips);
  blocking.band_rows = static_cast<int>(band_rows);
  blocking.block_tiles = static_cast<int>(std::min(block_tiles, band_rows * tile_columns));
  blocking.padded_in = static_cast<int>(padded_in);
  blocking.padded_group = static_cast<int>(padded_group);
  blocking.padded_intrinsic = static_cast<int>(padded_intrinsic);
  blocking.radius = radius;
  blocking.buffer_rows = static_cast<int>(round_up(tile * band_rows + 2 * std::int64_t{radius}, tile));
  blocking.row_floats = (radius + std::max(tile_width * tile_columns, out_width + radius)) * padded_intrinsic;
  if (winograd) {
    // The odd line keeps the components from falling into the same cache sets.
    constexpr auto kOddLine = static_cast<std::int64_t>(kLineFloats);
    blocking.input_component_floats = blocking.block_tiles * padded_in + kOddLine;
    blocking.output_component_floats = blocking.block_tiles * padded_group + kOddLine;
  }
  if (direct) {
    const std::int64_t row_inputs = shape.kernel * weight.in;
    const std::int64_t steps = ceil_div(row_inputs, kTileInputs);
    blocking.tile_steps = static_cast<int>(steps);
    // The last pixel of the last tile reads as many inputs as any other.
    const std::int64_t map_inputs = (shape.width + 2 * shape.padding_x) * weight.in;
    const std::int64_t read_inputs = (tile_width * tile_columns - 1) * weight.in + steps * kTileInputs;
    blocking.input_row_elements = round_up(std::max(map_inputs, read_inputs), kTileInputs);
  }
  blocking.chunk_pixels = static_cast<int>(
      std::min(out_width, std::max(kChunkFloats / shape.row_channels(), kFewestChunkPixels)));
  return blocking;
}

WorkspaceLayout make_workspace_layout(const Shape& shape, const Blocking& blocking, int workers) {
  const auto size = [](std::int64_t floats) { return static_cast<std::size_t>(floats); };
  const std::int64_t boundaries = blocking.boundaries(shape.batch);
  WorkspaceLayout layout;

  std::size_t shared = 0;
  layout.bias = take(shared, size(blocking.padded_intrinsic));
  layout.zero_row = take(shared, size(blocking.row_floats));
  layout.boundary_rows = take(shared, size(boundaries * 4 * blocking.radius * blocking.row_floats));
  layout.boundary_arrivals = take(shared, size(boundaries));
  layout.workers = shared;

  std::size_t worker = 0;
  layout.input_rows = take(worker, size(shape.groups * shape.kernel * blocking.input_row_elements / 2));
  layout.patch =
      take(worker, blocking.input_component_floats == 0 ? 0 : size(kComponents) * size(blocking.padded_in));
  layout.input_components = take(worker, size(kComponents * blocking.input_component_floats));
  layout.output_components = take(worker, size(kComponents * blocking.output_component_floats));
  layout.line_buffer = take(worker, size(blocking.buffer_rows * blocking.row_floats));
  layout.chunk = take(worker, size(blocking.chunk_pixels * shape.row_channels() + kChannelPadding));
  layout.worker_floats = worker;

  layout.total = shared + worker * static_cast<std::size_t>(workers);
  return layout;
}

}  // namespace ghostsr::fused
