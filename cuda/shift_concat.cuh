#pragma once

#include "activation.cuh"
#include "device_tables.cuh"
#include "shift_concat.h"
#include "tiling.cuh"

namespace ghostsr::cuda {

// What is done to the values of an output channel: value * gain + inside where its source pixel lies inside
// the map, and just outside where it does not.
template <typename A>
struct ChannelEpilogue {
  int32_t source;
  int32_t dy;
  int32_t dx;
  A gain;
  A inside;
  A outside;
  A slope;
};

template <typename T>
__device__ __forceinline__ ChannelEpilogue<accumulator_t<T>> resolve_epilogue(
    const ShiftConcatArguments<T>& arguments, int32_t channel) {
  using A = accumulator_t<T>;
  const ChannelLink<A> link = resolve_channel(arguments.tables, channel);
  const NumberTable<T>& bias = arguments.convolution_bias;
  const A inside = bias.data == nullptr
                       ? link.bias
                       : widen(load(bias.data + link.source * bias.step)) * link.gain + link.bias;
  const A scale = arguments.residual_scale;
  return {link.source, link.dy, link.dx, link.gain * scale, inside * scale, link.bias * scale, link.slope};
}

// Resolves up to kSharedLinks channels into shared memory. Every thread of the block must call it.
template <typename T>
__device__ __forceinline__ void resolve_epilogues(const ShiftConcatArguments<T>& arguments, int32_t first,
                                                  int32_t count,
                                                  ChannelEpilogue<accumulator_t<T>>* epilogues) {
  for (auto index = static_cast<int32_t>(threadIdx.x); index < count && index < kSharedLinks;
       index += kThreads) {
    epilogues[index] = resolve_epilogue(arguments, first + index);
  }
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    shift_concat_rows(const ShiftConcatArguments<T> arguments, const RowTiling tiling) {
  using A = accumulator_t<T>;
  const Quotient tile = tiling.channels.divide(static_cast<int32_t>(blockIdx.x));
  const Quotient image = tiling.tiles.divide(tile.value);
  const int64_t n = tiling.first_image + image.value;
  const int32_t channel = tile.remainder;
  const ChannelEpilogue<A> epilogue = resolve_epilogue(arguments, channel);
  const Strides& in = arguments.intrinsic_strides;
  const Strides& res = arguments.residual_strides;
  const Strides& out = arguments.output_strides;
  const T* intrinsic = arguments.intrinsic + n * in.batch + epilogue.source * in.channel;
  const T* residual =
      arguments.residual == nullptr ? nullptr : arguments.residual + n * res.batch + channel * res.channel;
  T* output = arguments.output + n * out.batch + channel * out.channel;
  const auto height = static_cast<int32_t>(arguments.extent.height);
  const auto width = static_cast<int32_t>(arguments.extent.width);
  const int32_t begin = image.remainder * kTileItems;
  const int32_t end = tiling.items - begin < kTileItems ? tiling.items : begin + kTileItems;
  for (int32_t item = begin + static_cast<int32_t>(threadIdx.x); item < end; item += kThreads) {
    const Quotient row = tiling.chunks_per_row.divide(item);
    const int32_t y = row.value;
    T* output_row = output + y * out.y;
    const int32_t x = row.remainder * kChunk<T> - elements_past_boundary(output_row);
    if (x >= width) {
      continue;
    }
    const int32_t source_y = y + epilogue.dy;
    const int32_t source_x = x + epilogue.dx;
    const bool row_inside = source_y >= 0 && source_y < height;
    uint4 bits = make_uint4(0, 0, 0, 0);
    if (row_inside) {
      bits = read_window(intrinsic + source_y * in.y, width, source_x);
    }
    A values[kChunk<T>];
    unpack<T>(bits, values);
    const bool all_inside = row_inside && source_x >= 0 && source_x <= width - kChunk<T>;
#pragma unroll
    for (int index = 0; index < kChunk<T>; ++index) {
      const bool inside = all_inside || (row_inside && source_x + index >= 0 && source_x + index < width);
      values[index] = values[index] * epilogue.gain + (inside ? epilogue.inside : epilogue.outside);
    }
    if (residual != nullptr) {
      A residuals[kChunk<T>];
      unpack<T>(read_window(residual + y * res.y, width, x), residuals);
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = residuals[index] + values[index];
      }
    }
#pragma unroll
    for (int index = 0; index < kChunk<T>; ++index) {
      values[index] = activate(arguments.tables.activation.kind, values[index], epilogue.slope);
    }
    write_chunk(output_row, width, x, pack<T>(values));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) shift_concat_pixels(const ShiftConcatArguments<T> arguments,
                                                                const PixelTiling tiling, bool runs_aligned) {
  using A = accumulator_t<T>;
  const Quotient tile = tiling.pixel_tiles.divide(static_cast<int32_t>(blockIdx.x));
  const Quotient image = tiling.group_tiles.divide(tile.value);
  const int64_t n = tiling.first_image + image.value;
  const int32_t first_group = image.remainder * tiling.groups_tile;
  const int32_t groups =
      tiling.groups - first_group < tiling.groups_tile ? tiling.groups - first_group : tiling.groups_tile;
  __shared__ ChannelEpilogue<A> epilogues[kSharedLinks];
  resolve_epilogues(arguments, first_group * kChunk<T>, groups * kChunk<T>, epilogues);
  const int32_t column = static_cast<int32_t>(threadIdx.x) / tiling.groups_tile;
  const int32_t local_group = static_cast<int32_t>(threadIdx.x) - column * tiling.groups_tile;
  if (local_group >= groups || column >= tiling.pixels_step) {
    return;
  }
  const int32_t group = first_group + local_group;
  const Strides& in = arguments.intrinsic_strides;
  const Strides& res = arguments.residual_strides;
  const Strides& out = arguments.output_strides;
  // The thread keeps the origins of its channels in registers and walks over pixels.
  const ChannelEpilogue<A>* own = epilogues + local_group * kChunk<T>;
  A gains[kChunk<T>];
  A biases[kChunk<T>];
  int32_t offsets[kChunk<T>];
  int32_t shifts[kChunk<T>];  // dy in the upper half, dx in the lower
  bool run = runs_aligned;    // whether the channels lie together, so that one access reads them all
  int32_t radius = 0;
#pragma unroll
  for (int index = 0; index < kChunk<T>; ++index) {
    const ChannelEpilogue<A>& link = own[index];
    gains[index] = link.gain;
    biases[index] = link.inside;
    offsets[index] = static_cast<int32_t>(link.source + link.dy * in.y + link.dx * in.x);
    shifts[index] = link.dy * 65536 + (link.dx & 0xffff);
    run = run && offsets[index] == offsets[0] + index && shifts[index] == shifts[0];
    radius = link.dy > radius ? link.dy : -link.dy > radius ? -link.dy : radius;
    radius = link.dx > radius ? link.dx : -link.dx > radius ? -link.dx : radius;
  }
  run = run && offsets[0] % kChunk<T> == 0;
  const T* intrinsic = arguments.intrinsic + n * in.batch;
  const auto height = static_cast<int32_t>(arguments.extent.height);
  const auto width = static_cast<int32_t>(arguments.extent.width);
  const int32_t begin = tile.remainder * (tiling.pixels_step * kPixelSteps);
  const int32_t span = tiling.pixels_step * kPixelSteps;
  const int32_t end = tiling.pixels - begin < span ? tiling.pixels : begin + span;
  for (int32_t pixel = begin + column; pixel < end; pixel += tiling.pixels_step) {
    const Quotient row = tiling.width.divide(pixel);
    const int32_t y = row.value;
    const int32_t x = row.remainder;
    const T* here = intrinsic + y * in.y + x * in.x;
    const auto inside = [&](int32_t shift) {
      const int32_t source_y = y + (shift >> 16);
      const int32_t source_x = x + static_cast<int16_t>(shift & 0xffff);
      return source_y >= 0 && source_y < height && source_x >= 0 && source_x < width;
    };
    A values[kChunk<T>];
    if (y >= radius && y < height - radius && x >= radius && x < width - radius) {
      if (run) {
        unpack<T>(load_chunk(here + offsets[0]), values);
      } else {
#pragma unroll
        for (int index = 0; index < kChunk<T>; ++index) {
          values[index] = widen(load(here + offsets[index]));
        }
      }
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = values[index] * gains[index] + biases[index];
      }
    } else {
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = inside(shifts[index])
                            ? widen(load(here + offsets[index])) * gains[index] + biases[index]
                            : own[index].outside;
      }
    }
    if (arguments.residual != nullptr) {
      A residuals[kChunk<T>];
      unpack<T>(load_chunk(arguments.residual + n * res.batch + y * res.y + x * res.x + group * kChunk<T>),
                residuals);
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = residuals[index] + values[index];
      }
    }
#pragma unroll
    for (int index = 0; index < kChunk<T>; ++index) {
      values[index] = activate(arguments.tables.activation.kind, values[index], own[index].slope);
    }
    store_chunk(arguments.output + n * out.batch + y * out.y + x * out.x + group * kChunk<T>,
                pack<T>(values));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    shift_concat_elements(const ShiftConcatArguments<T> arguments, const ElementTiling tiling) {
  using A = accumulator_t<T>;
  __shared__ ChannelEpilogue<A> epilogues[kSharedLinks];
  const int32_t channels = arguments.tables.intrinsic_channels + arguments.tables.ghosts;
  resolve_epilogues(arguments, 0, channels, epilogues);
  const Quotient tile = tiling.tiles.divide(static_cast<int32_t>(blockIdx.x));
  const Quotient image = tiling.height.divide(tile.value);
  const int64_t n = tiling.first_image + image.value;
  const int32_t y = image.remainder;
  const Strides& in = arguments.intrinsic_strides;
  const Strides& res = arguments.residual_strides;
  const Strides& out = arguments.output_strides;
  const int32_t begin = tile.remainder * kTileItems;
  const int32_t end = tiling.items - begin < kTileItems ? tiling.items : begin + kTileItems;
  for (int32_t item = begin + static_cast<int32_t>(threadIdx.x); item < end; item += kThreads) {
    const Quotient inner = tiling.inner.divide(item);
    const int32_t channel = tiling.channels_innermost ? inner.remainder : inner.value;
    const int32_t x = tiling.channels_innermost ? inner.value : inner.remainder;
    const ChannelEpilogue<A> epilogue =
        channel < kSharedLinks ? epilogues[channel] : resolve_epilogue(arguments, channel);
    const int32_t source_y = y + epilogue.dy;
    const int32_t source_x = x + epilogue.dx;
    A value = epilogue.outside;
    if (source_y >= 0 && source_y < arguments.extent.height && source_x >= 0 &&
        source_x < arguments.extent.width) {
      value = widen(load(arguments.intrinsic + n * in.batch + epilogue.source * in.channel + source_y * in.y +
                         source_x * in.x)) *
                  epilogue.gain +
              epilogue.inside;
    }
    if (arguments.residual != nullptr) {
      value =
          widen(load(arguments.residual + n * res.batch + channel * res.channel + y * res.y + x * res.x)) +
          value;
    }
    store(arguments.output + n * out.batch + channel * out.channel + y * out.y + x * out.x,
          narrow<T>(activate(arguments.tables.activation.kind, value, epilogue.slope)));
  }
}

template <typename T>
bool can_take_rows(const ShiftConcatArguments<T>& arguments) {
  return arguments.intrinsic_strides.x == 1 && arguments.output_strides.x == 1 &&
         (arguments.residual == nullptr || arguments.residual_strides.x == 1);
}

template <typename T>
bool can_take_pixels(const ShiftConcatArguments<T>& arguments) {
  const int64_t channels = int64_t{arguments.tables.intrinsic_channels} + arguments.tables.ghosts;
  return channels % kChunk<T> == 0 && arguments.intrinsic_strides.channel == 1 &&
         pixels_aligned(arguments.output, arguments.output_strides) &&
         (arguments.residual == nullptr || pixels_aligned(arguments.residual, arguments.residual_strides)) &&
         offsets_fit(arguments.intrinsic_strides, channels);
}

template <typename T>
ShiftConcatPath shift_concat_path(const ShiftConcatArguments<T>& arguments) {
  return can_take_rows(arguments) && fills_rows<T>(arguments.extent) ? ShiftConcatPath::rows
         : can_take_pixels(arguments)                                ? ShiftConcatPath::pixels
                                                                     : ShiftConcatPath::elements;
}

template <typename T>
void launch_shift_concat(const ShiftConcatArguments<T>& arguments, ShiftConcatPath path,
                         cudaStream_t stream) {
  const int64_t channels = int64_t{arguments.tables.intrinsic_channels} + arguments.tables.ghosts;
  switch (path) {
    case ShiftConcatPath::rows: {
      RowTiling tiling = RowTiling::of<T>(arguments.extent, channels,
                                          rows_aligned(arguments.output, arguments.output_strides));
      launch_in_batches(arguments.extent.batch, tiling.blocks_per_image, [&](int64_t first, int64_t blocks) {
        tiling.first_image = first;
        launch("shift_concat_rows", shift_concat_rows<T>, blocks, kThreads, stream, arguments, tiling);
      });
      break;
    }
    case ShiftConcatPath::pixels: {
      PixelTiling tiling = PixelTiling::of<T>(arguments.extent, channels);
      const bool runs_aligned = pixels_aligned(arguments.intrinsic, arguments.intrinsic_strides);
      launch_in_batches(arguments.extent.batch, tiling.blocks_per_image, [&](int64_t first, int64_t blocks) {
        tiling.first_image = first;
        launch("shift_concat_pixels", shift_concat_pixels<T>, blocks, kThreads, stream, arguments, tiling,
               runs_aligned);
      });
      break;
    }
    case ShiftConcatPath::elements: {
      ElementTiling tiling =
          ElementTiling::of(arguments.extent, channels, arguments.output_strides.channel == 1);
      launch_in_batches(arguments.extent.batch, tiling.blocks_per_image, [&](int64_t first, int64_t blocks) {
        tiling.first_image = first;
        launch("shift_concat_elements", shift_concat_elements<T>, blocks, kThreads, stream, arguments,
               tiling);
      });
      break;
    }
  }
}

}  // namespace ghostsr::cuda
