#include "core/fused/strip.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <type_traits>

#include "core/fused/packed_weight.h"
#include "core/fused/rounding.h"

namespace ghostsr::fused {

// A strip's rows need the rows of its neighbours within the largest shift. Each strip leaves copies of its
// first and last 2 * radius rows at its boundaries; whichever neighbour comes second finishes the 2 * radius
// output rows around the boundary. So no row is computed twice, and nobody waits.
template <class T>
struct StripRunner<T>::Strip {
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

template <class T>
StripRunner<T>::StripRunner(const ConvolutionCall<T>& call, int worker)
    : call_(call),
      blocking_(call.blocking),
      out_height_(static_cast<int>(call.arguments->shape.out_height())),
      out_width_(static_cast<int>(call.arguments->shape.out_width())),
      worker_(call.workspace + call.layout.workers +
              static_cast<std::size_t>(worker) * call.layout.worker_floats),
      lines_{worker_ + call.layout.line_buffer, blocking_.row_floats, blocking_.buffer_rows, blocking_.radius,
             blocking_.padded_intrinsic} {
  // What lies beside the map stays zero: only the pixels that complete the last tile are written to.
  for (int row = 0; row < lines_.rows; ++row) {
    float* begin = lines_.data + row * lines_.row_stride;
    const std::ptrdiff_t map_end =
        (lines_.margin + out_width_) * static_cast<std::ptrdiff_t>(lines_.channels);
    std::fill(begin, begin + lines_.margin * static_cast<std::ptrdiff_t>(lines_.channels), 0.0F);
    std::fill(begin + map_end, begin + lines_.row_stride, 0.0F);
  }
  if constexpr (std::is_same_v<T, BFloat16>) {
    // And so does what lies beside the input.
    const Shape& shape = call.arguments->shape;
    T* rows = input_row(0, 0);
    std::fill(rows, rows + shape.groups * shape.kernel * blocking_.input_row_elements, T(0.0F));
  }
}

template <class T>
void StripRunner<T>::run(std::int64_t index) {
  const Shape& shape = call_.arguments->shape;
  const int strips = blocking_.strips;
  const int within = static_cast<int>(index % strips);

  Strip strip{};
  strip.picture = index / strips;
  strip.first_tile_row = static_cast<int>(std::int64_t{blocking_.tile_rows} * within / strips);
  strip.end_tile_row = static_cast<int>(std::int64_t{blocking_.tile_rows} * (within + 1) / strips);
  strip.first_row = blocking_.tile * strip.first_tile_row;
  strip.end_row = std::min(blocking_.tile * strip.end_tile_row, out_height_);
  strip.has_above = within > 0 && blocking_.radius > 0;
  strip.has_below = within + 1 < strips && blocking_.radius > 0;
  strip.below = strip.picture * (strips - 1) + within;
  strip.above = strip.below - 1;
  strip.next_row = strip.has_above ? strip.first_row + blocking_.radius : strip.first_row;
  strip.last_row = strip.has_below ? strip.end_row - blocking_.radius : strip.end_row;

  input_ = InputMapOf<T>{call_.arguments->input + strip.picture * call_.arguments->input_stride_n,
                         call_.arguments->input_stride_y,
                         call_.arguments->input_stride_x,
                         static_cast<int>(shape.height),
                         static_cast<int>(shape.width),
                         static_cast<int>(shape.in_channels),
                         static_cast<int>(shape.padding_y),
                         static_cast<int>(shape.padding_x)};

  next_input_row_ = strip.first_row;
  for (int row = strip.first_tile_row; row < strip.end_tile_row; row += blocking_.band_rows) {
    run_band(strip, row, std::min(row + blocking_.band_rows, strip.end_tile_row));
  }
  if (strip.has_below) {
    save_rows(strip.below, strip.end_row, strip.end_row - 2 * blocking_.radius, strip.end_row);
    arrive(strip.below, strip.picture, strip.end_row);
  }
  if (strip.has_above) {
    arrive(strip.above, strip.picture, strip.first_row);
  }
}

template <class T>
void StripRunner<T>::run_band(Strip& strip, int first_tile_row, int end_tile_row) {
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
  const int computed_width = blocking_.tile_width * blocking_.tile_columns;
  if (computed_width > out_width_) {
    const std::ptrdiff_t from = (lines_.margin + out_width_) * static_cast<std::ptrdiff_t>(lines_.channels);
    const std::ptrdiff_t to = (lines_.margin + computed_width) * static_cast<std::ptrdiff_t>(lines_.channels);
    for (int y = computed_begin; y < computed_end; ++y) {
      float* row = lines_.data + y % lines_.rows * lines_.row_stride;
      std::fill(row + from, row + to, 0.0F);
    }
  }
  if (strip.has_above) {
    save_rows(strip.above, strip.first_row, computed_begin,
              std::min(computed_end, strip.first_row + 2 * blocking_.radius));
  }
  const int finishable = computed_end == out_height_ ? out_height_ : computed_end - blocking_.radius;
  for (; strip.next_row < std::min(finishable, strip.last_row); ++strip.next_row) {
    finish_row(strip.picture, strip.next_row,
               [this](int y) -> const float* { return lines_.data + y % lines_.rows * lines_.row_stride; });
  }
}

template <class T>
void StripRunner<T>::run_block(const TileRun& tiles) {
  const Shape& shape = call_.arguments->shape;
  const auto groups = static_cast<int>(shape.groups);
  if constexpr (std::is_same_v<T, BFloat16>) {
    const auto y = static_cast<int>(tiles.first / tiles.columns);
    for (; next_input_row_ < y + shape.kernel; ++next_input_row_) {
      read_row(next_input_row_);
    }
    for (int group = 0; group < groups; ++group) {
      run_row(y, group);
    }
  } else {
    for (int group = 0; group < groups; ++group) {
      if (shape.kernel == 1) {
        run_pixels(tiles, group);
      } else {
        run_tiles(tiles, group);
      }
    }
  }
}

// Copies an input row between the zeros beside the map, where the kernels may read whole tiles.
template <class T>
void StripRunner<T>::read_row(std::int64_t row)
  requires std::same_as<T, BFloat16>
{
  const auto groups = static_cast<int>(call_.arguments->shape.groups);
  const std::int64_t y = row - input_.padding_y;
  for (int group = 0; group < groups; ++group) {
    const InputMapOf<T> input = group_input(group);
    const auto pixel_bytes = static_cast<std::size_t>(input.channels) * sizeof(T);
    const std::size_t row_bytes = static_cast<std::size_t>(input.width) * pixel_bytes;
    T* to = input_row(group, row) + std::ptrdiff_t{input.padding_x} * input.channels;
    const T* from = input.data + y * input.stride_y;
    if (y < 0 || y >= input.height) {
      std::memset(to, 0, row_bytes);
    } else if (input.stride_x == input.channels) {
      std::memcpy(to, from, row_bytes);
    } else {
      for (int x = 0; x < input.width; ++x) {
        std::memcpy(to + std::ptrdiff_t{x} * input.channels, from + x * input.stride_x, pixel_bytes);
      }
    }
  }
}

template <class T>
void StripRunner<T>::run_row(int y, int group)
  requires std::same_as<T, BFloat16>
{
  const auto kernel = static_cast<int>(call_.arguments->shape.kernel);
  const ChannelRange channels = group_channels(group);
  TileProduct product{
      .rows = {},
      .row_count = kernel,
      .pixel_stride = group_input(group).channels,
      .steps = blocking_.tile_steps,
      .packed_weight = group_weight(group),
      .bias = call_.workspace + call_.layout.bias + channels.first,
      .output = lines_.data + y % lines_.rows * lines_.row_stride +
                lines_.margin * static_cast<std::ptrdiff_t>(lines_.channels) + channels.first,
      .output_stride = lines_.channels,
      .tiles = blocking_.tile_columns,
      .padded_out = channels.count,
      .prefetch = nullptr,
      .prefetch_bytes = 0,
  };
  if (group == 0 && next_input_row_ - input_.padding_y < input_.height) {
    product.prefetch =
        reinterpret_cast<const char*>(input_.data + (next_input_row_ - input_.padding_y) * input_.stride_y);
    product.prefetch_bytes = input_.width * input_.stride_x * static_cast<std::ptrdiff_t>(sizeof(T));
  }
  for (int row = 0; row < kernel; ++row) {
    product.rows[row] = input_row(group, y + row);
  }
  call_.stages->multiply_tiles(product);
}

template <class T>
T* StripRunner<T>::input_row(int group, std::int64_t row) const {
  const std::int64_t kernel = call_.arguments->shape.kernel;
  return reinterpret_cast<T*>(worker_ + call_.layout.input_rows) +
         (group * kernel + row % kernel) * blocking_.input_row_elements;
}

// Winograd's convolution.
template <class T>
void StripRunner<T>::run_tiles(const TileRun& tiles, int group)
  requires std::same_as<T, float>
{
  const Stages& stages = *call_.stages;
  const ComponentMatrices transformed{worker_ + call_.layout.input_components, blocking_.padded_in,
                                      blocking_.input_component_floats};
  const ComponentMatrices product{worker_ + call_.layout.output_components, blocking_.padded_group,
                                  blocking_.output_component_floats};
  const InputMap input = group_input(group);
  stages.transform_input(input, tiles, worker_ + call_.layout.patch, transformed);
  stages.multiply(Product{{transformed.data, transformed.row_stride, transformed.component_stride},
                          product,
                          group_weight(group),
                          nullptr,
                          kComponents,
                          tiles.count,
                          input.channels,
                          blocking_.padded_group});
  stages.transform_output(product, tiles, call_.workspace + call_.layout.bias, group_channels(group), lines_);
}

// The 1x1 convolution: the pixels of one row are the rows of a matrix, of the input and of the line buffer.
template <class T>
void StripRunner<T>::run_pixels(const TileRun& pixels, int group)
  requires std::same_as<T, float>
{
  const std::int64_t y = pixels.first / pixels.columns;
  const std::int64_t x = pixels.first % pixels.columns;
  const InputMap input = group_input(group);
  const ChannelRange channels = group_channels(group);
  const float* from = input.data + y * input.stride_y + x * input.stride_x;
  float* to = lines_.data + y % lines_.rows * lines_.row_stride + (lines_.margin + x) * lines_.channels +
              channels.first;
  call_.stages->multiply(Product{{from, input.stride_x, 0},
                                 {to, lines_.channels, 0},
                                 group_weight(group),
                                 call_.workspace + call_.layout.bias + channels.first,
                                 1,
                                 pixels.count,
                                 input.channels,
                                 channels.count});
}

template <class T>
InputMapOf<T> StripRunner<T>::group_input(int group) const {
  InputMapOf<T> input = input_;
  input.channels = static_cast<int>(call_.arguments->shape.weight_size().in);
  input.data += std::ptrdiff_t{group} * input.channels;
  return input;
}

template <class T>
ChannelRange StripRunner<T>::group_channels(int group) const {
  return {group * blocking_.padded_group, blocking_.padded_group};
}

template <class T>
const T* StripRunner<T>::group_weight(int group) const {
  WeightSize size = call_.arguments->shape.weight_size();
  size.groups = group;
  return call_.arguments->packed_weight + packed_size<T>(size);
}

// Copies the rows first..end - 1 of the line buffer to a boundary, which holds 2 * radius rows from either
// side of boundary_y.
template <class T>
void StripRunner<T>::save_rows(std::int64_t boundary, int boundary_y, int first, int end) {
  const int held = 4 * blocking_.radius;
  float* rows = call_.workspace + call_.layout.boundary_rows + boundary * held * blocking_.row_floats;
  for (int y = first; y < end; ++y) {
    std::memcpy(rows + (y - boundary_y + held / 2) * blocking_.row_floats,
                lines_.data + y % lines_.rows * lines_.row_stride,
                static_cast<std::size_t>(blocking_.row_floats) * sizeof(float));
  }
}

template <class T>
void StripRunner<T>::arrive(std::int64_t boundary, std::int64_t picture, int boundary_y) {
  auto* arrivals = reinterpret_cast<std::int32_t*>(call_.workspace + call_.layout.boundary_arrivals);
  if (std::atomic_ref<std::int32_t>(arrivals[boundary]).fetch_add(1, std::memory_order_acq_rel) == 1) {
    finish_boundary(boundary, picture, boundary_y);
  }
}

template <class T>
void StripRunner<T>::finish_boundary(std::int64_t boundary, std::int64_t picture, int boundary_y) {
  const int radius = blocking_.radius;
  const float* rows =
      call_.workspace + call_.layout.boundary_rows + boundary * 4 * radius * blocking_.row_floats;
  for (int y = boundary_y - radius; y < std::min(boundary_y + radius, out_height_); ++y) {
    finish_row(picture, y,
               [&](int source) { return rows + (source - boundary_y + 2 * radius) * blocking_.row_floats; });
  }
}

// `row_at` gives the start of an intrinsic row within the map.
template <class T>
template <class RowAt>
void StripRunner<T>::finish_row(std::int64_t picture, int y, RowAt row_at) {
  const int radius = blocking_.radius;
  const std::ptrdiff_t margin = radius * static_cast<std::ptrdiff_t>(blocking_.padded_intrinsic);
  const float* rows[2 * kMaxShift + 1];
  for (int dy = -radius; dy <= radius; ++dy) {
    const int source = y + dy;
    const bool inside = source >= 0 && source < out_height_;
    rows[radius + dy] = (inside ? row_at(source) : call_.workspace + call_.layout.zero_row) + margin;
  }
  const ArgumentsOf<T>& arguments = *call_.arguments;
  const std::int64_t shuffle = arguments.shape.shuffle;
  const std::int64_t offset = (picture * out_height_ + y) * out_width_ * call_.epilogue.out_channels;
  const T* residual = arguments.residual == nullptr ? nullptr : arguments.residual + offset;
  T* output =
      arguments.output + picture * arguments.output_stride_n + y * shuffle * arguments.output_stride_y;
  Epilogue epilogue = call_.epilogue;
  for (std::int64_t row = 0; row < shuffle; ++row) {
    const EpilogueRow<T> finished{rows + radius, residual,
                                  output,        shuffle * arguments.output_stride_x,
                                  out_width_,    worker_ + call_.layout.chunk};
    if constexpr (std::is_same_v<T, BFloat16>) {
      call_.stages->finish_bfloat16_row(epilogue, finished);
    } else {
      call_.stages->finish_row(epilogue, finished);
    }
    output += arguments.output_stride_y;
    epilogue.groups += ceil_div(epilogue.out_channels, kGroup);
    if (epilogue.activation == ActivationKind::leaky) {
      epilogue.slopes += epilogue.slope_period + kMostLanes;
    }
  }
}

template class StripRunner<float>;
template class StripRunner<BFloat16>;

}  // namespace ghostsr::fused
