#include "core/fused/strip.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/fused/packed_weight.h"

namespace ghostsr::fused {

// A strip's rows need the rows of its neighbours within a shift's reach. Each strip leaves copies of its
// first and last 2 * reach rows at its boundaries; whichever neighbour comes second finishes the 2 * reach
// output rows around the boundary. So no row is computed twice, and nobody waits.
struct StripRunner::Strip {
  std::int64_t picture;
  int first_tile_row;
  int end_tile_row;
  int first_row;
  int end_row;
  bool has_above;
  bool has_below;
  std::int64_t above;  // indices of the boundaries
  std::int64_t below;
  int next_row;  // to finish
  int last_row;  // end of the rows that this strip finishes by itself
};

StripRunner::StripRunner(const Job& job, int worker)
    : job_(job),
      blocking_(job.blocking),
      out_height_(static_cast<int>(job.arguments->shape.out_height())),
      out_width_(static_cast<int>(job.arguments->shape.out_width())),
      worker_(job.workspace + job.layout.workers +
              static_cast<std::size_t>(worker) * job.layout.worker_floats),
      ring_{worker_ + job.layout.ring, blocking_.row_floats, blocking_.ring_rows, blocking_.reach,
            blocking_.padded_intrinsic} {
  // What lies beside the map stays zero: only the pixels that complete the last tile are written to.
  for (int row = 0; row < ring_.rows; ++row) {
    float* begin = ring_.data + row * ring_.row_stride;
    const std::ptrdiff_t map_end = (ring_.margin + out_width_) * static_cast<std::ptrdiff_t>(ring_.channels);
    std::fill(begin, begin + ring_.margin * static_cast<std::ptrdiff_t>(ring_.channels), 0.0F);
    std::fill(begin + map_end, begin + ring_.row_stride, 0.0F);
  }
}

void StripRunner::run(std::int64_t index) {
  const Shape& shape = job_.arguments->shape;
  const int strips = blocking_.strips;
  const int within = static_cast<int>(index % strips);

  Strip strip{};
  strip.picture = index / strips;
  strip.first_tile_row = static_cast<int>(std::int64_t{blocking_.tile_rows} * within / strips);
  strip.end_tile_row = static_cast<int>(std::int64_t{blocking_.tile_rows} * (within + 1) / strips);
  strip.first_row = blocking_.tile * strip.first_tile_row;
  strip.end_row = std::min(blocking_.tile * strip.end_tile_row, out_height_);
  strip.has_above = within > 0 && blocking_.reach > 0;
  strip.has_below = within + 1 < strips && blocking_.reach > 0;
  strip.below = strip.picture * (strips - 1) + within;
  strip.above = strip.below - 1;
  strip.next_row = strip.has_above ? strip.first_row + blocking_.reach : strip.first_row;
  strip.last_row = strip.has_below ? strip.end_row - blocking_.reach : strip.end_row;

  input_ = InputMap{job_.arguments->input + strip.picture * job_.arguments->input_stride_n,
                    job_.arguments->input_stride_y,
                    job_.arguments->input_stride_x,
                    static_cast<int>(shape.height),
                    static_cast<int>(shape.width),
                    static_cast<int>(shape.in_channels),
                    static_cast<int>(shape.padding_y),
                    static_cast<int>(shape.padding_x)};

  for (int row = strip.first_tile_row; row < strip.end_tile_row; row += blocking_.band_rows) {
    run_band(strip, row, std::min(row + blocking_.band_rows, strip.end_tile_row));
  }
  if (strip.has_below) {
    save_rows(strip.below, strip.end_row, strip.end_row - 2 * blocking_.reach, strip.end_row);
    arrive(strip.below, strip.picture, strip.end_row);
  }
  if (strip.has_above) {
    arrive(strip.above, strip.picture, strip.first_row);
  }
}

void StripRunner::run_band(Strip& strip, int first_tile_row, int end_tile_row) {
  const std::int64_t columns = blocking_.tile_columns;
  const std::int64_t tiles = (end_tile_row - first_tile_row) * columns;
  const std::int64_t blocks = (tiles + blocking_.block_tiles - 1) / blocking_.block_tiles;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t begin = tiles * block / blocks;
    const std::int64_t end = tiles * (block + 1) / blocks;
    run_block(
        TileRun{first_tile_row * columns + begin, static_cast<int>(end - begin), blocking_.tile_columns});
  }

  const int computed_begin = blocking_.tile * first_tile_row;
  const int computed_end = std::min(blocking_.tile * end_tile_row, out_height_);
  const int computed_width = blocking_.tile * blocking_.tile_columns;
  if (computed_width > out_width_) {
    const std::ptrdiff_t from = (ring_.margin + out_width_) * static_cast<std::ptrdiff_t>(ring_.channels);
    const std::ptrdiff_t to = (ring_.margin + computed_width) * static_cast<std::ptrdiff_t>(ring_.channels);
    for (int y = computed_begin; y < computed_end; ++y) {
      float* row = ring_.data + y % ring_.rows * ring_.row_stride;
      std::fill(row + from, row + to, 0.0F);
    }
  }
  if (strip.has_above) {
    save_rows(strip.above, strip.first_row, computed_begin,
              std::min(computed_end, strip.first_row + 2 * blocking_.reach));
  }
  const int finishable = computed_end == out_height_ ? out_height_ : computed_end - blocking_.reach;
  for (; strip.next_row < std::min(finishable, strip.last_row); ++strip.next_row) {
    finish_row(strip.picture, strip.next_row,
               [this](int y) -> const float* { return ring_.data + y % ring_.rows * ring_.row_stride; });
  }
}

void StripRunner::run_block(const TileRun& tiles) {
  const auto groups = static_cast<int>(job_.arguments->shape.groups);
  for (int group = 0; group < groups; ++group) {
    if (job_.arguments->shape.kernel == 1) {
      run_pixels(tiles, group);
    } else {
      run_tiles(tiles, group);
    }
  }
}

// Winograd's convolution.
void StripRunner::run_tiles(const TileRun& tiles, int group) {
  const Stages& stages = *job_.stages;
  const ComponentMatrices transformed{worker_ + job_.layout.input_components, blocking_.padded_in,
                                      blocking_.input_component_floats};
  const ComponentMatrices product{worker_ + job_.layout.output_components, blocking_.padded_group,
                                  blocking_.output_component_floats};
  const InputMap input = group_input(group);
  stages.transform_input(input, tiles, worker_ + job_.layout.patch, transformed);
  stages.multiply(Product{{transformed.data, transformed.row_stride, transformed.component_stride},
                          product,
                          group_weight(group),
                          nullptr,
                          kComponents,
                          tiles.count,
                          input.channels,
                          blocking_.padded_group});
  stages.transform_output(product, tiles, job_.workspace + job_.layout.bias, group_channels(group), ring_);
}

// The 1x1 convolution: the pixels of one row are the rows of a matrix, of the input and of the ring.
void StripRunner::run_pixels(const TileRun& pixels, int group) {
  const std::int64_t y = pixels.first / pixels.columns;
  const std::int64_t x = pixels.first % pixels.columns;
  const InputMap input = group_input(group);
  const ChannelRange channels = group_channels(group);
  const float* from = input.data + y * input.stride_y + x * input.stride_x;
  float* to =
      ring_.data + y % ring_.rows * ring_.row_stride + (ring_.margin + x) * ring_.channels + channels.first;
  job_.stages->multiply(Product{{from, input.stride_x, 0},
                                {to, ring_.channels, 0},
                                group_weight(group),
                                job_.workspace + job_.layout.bias + channels.first,
                                1,
                                pixels.count,
                                input.channels,
                                channels.count});
}

InputMap StripRunner::group_input(int group) const {
  InputMap input = input_;
  input.channels = static_cast<int>(job_.arguments->shape.weight_size().in);
  input.data += std::ptrdiff_t{group} * input.channels;
  return input;
}

ChannelRange StripRunner::group_channels(int group) const {
  return {group * blocking_.padded_group, blocking_.padded_group};
}

const float* StripRunner::group_weight(int group) const {
  WeightSize size = job_.arguments->shape.weight_size();
  size.groups = group;
  return job_.arguments->packed_weight + packed_size(size);
}

// Copies the rows first..end - 1 of the ring to a boundary, which holds 2 * reach rows from either side of
// boundary_y.
void StripRunner::save_rows(std::int64_t boundary, int boundary_y, int first, int end) {
  const int held = 4 * blocking_.reach;
  float* rows = job_.workspace + job_.layout.boundary_rows + boundary * held * blocking_.row_floats;
  for (int y = first; y < end; ++y) {
    std::memcpy(rows + (y - boundary_y + held / 2) * blocking_.row_floats,
                ring_.data + y % ring_.rows * ring_.row_stride,
                static_cast<std::size_t>(blocking_.row_floats) * sizeof(float));
  }
}

void StripRunner::arrive(std::int64_t boundary, std::int64_t picture, int boundary_y) {
  auto* arrivals = reinterpret_cast<std::int32_t*>(job_.workspace + job_.layout.boundary_arrivals);
  if (std::atomic_ref<std::int32_t>(arrivals[boundary]).fetch_add(1, std::memory_order_acq_rel) == 1) {
    finish_boundary(boundary, picture, boundary_y);
  }
}

void StripRunner::finish_boundary(std::int64_t boundary, std::int64_t picture, int boundary_y) {
  const int reach = blocking_.reach;
  const float* rows =
      job_.workspace + job_.layout.boundary_rows + boundary * 4 * reach * blocking_.row_floats;
  for (int y = boundary_y - reach; y < std::min(boundary_y + reach, out_height_); ++y) {
    finish_row(picture, y,
               [&](int source) { return rows + (source - boundary_y + 2 * reach) * blocking_.row_floats; });
  }
}

// `row_at` gives the start of an intrinsic row within the map.
template <class RowAt>
void StripRunner::finish_row(std::int64_t picture, int y, RowAt row_at) {
  const int reach = blocking_.reach;
  const std::ptrdiff_t margin = reach * static_cast<std::ptrdiff_t>(blocking_.padded_intrinsic);
  const float* rows[2 * kMaxShift + 1];
  for (int dy = -reach; dy <= reach; ++dy) {
    const int source = y + dy;
    const bool inside = source >= 0 && source < out_height_;
    rows[reach + dy] = (inside ? row_at(source) : job_.workspace + job_.layout.zero_row) + margin;
  }
  const Arguments& arguments = *job_.arguments;
  const std::int64_t offset = (picture * out_height_ + y) * out_width_ * job_.epilogue.out_channels;
  float* output = arguments.output + picture * arguments.output_stride_n + y * arguments.output_stride_y;
  job_.stages->finish_row(
      job_.epilogue,
      EpilogueRow{rows + reach, arguments.residual == nullptr ? nullptr : arguments.residual + offset, output,
                  arguments.output_stride_x, out_width_, worker_ + job_.layout.chunk});
}

}  // namespace ghostsr::fused
