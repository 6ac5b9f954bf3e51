#pragma once

#include "activation.cuh"
#include "device_tables.cuh"
#include "shift_concat_backward.h"
#include "tiling.cuh"

namespace ghostsr::cuda {

// Readers that a block keeps at hand; further ones are read from the plan.
constexpr int kSharedReaders = 256;

// Copies the readers [begin, end) to shared memory and returns the first of them there, or in the plan where
// they do not fit. Every thread of the block must call it.
template <typename A>
__device__ __forceinline__ const ChannelLink<A>* gather_readers(const ChannelLink<A>* readers, int32_t begin,
                                                                int32_t end, ChannelLink<A>* shared) {
  if (end - begin > kSharedReaders) {
    return readers + begin;
  }
  for (int32_t index = begin + static_cast<int32_t>(threadIdx.x); index < end; index += kThreads) {
    shared[index - begin] = readers[index];
  }
  __syncthreads();
  return shared;
}

// What one element of the gradient of the output adds to that of its source.
template <typename T, typename A>
__device__ __forceinline__ A passed(const OutputGradient<T>& gradient, const ChannelLink<A>& reader, A value,
                                    A seen) {
  const A gain = reader.gain * gradient.residual_scale;
  const A moved = value * gain;
  if (gradient.mask_source == MaskSource::none) {
    return moved;
  }
  const A signed_value = gradient.mask_source == MaskSource::intrinsic
                             ? seen * gain + reader.bias * gradient.residual_scale
                             : seen;
  return activation_gradient(gradient.activation, signed_value, moved, reader.slope);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    shift_concat_backward_rows(const ShiftConcatBackwardArguments<T> arguments, const RowTiling tiling) {
  using A = accumulator_t<T>;
  __shared__ ChannelLink<A> shared[kSharedReaders];
  const OutputGradient<T>& gradient = arguments.gradient;
  const Quotient tile = tiling.channels.divide(static_cast<int32_t>(blockIdx.x));
  const Quotient image = tiling.tiles.divide(tile.value);
  const int64_t n = tiling.first_image + image.value;
  const int32_t channel = tile.remainder;
  const int32_t first_reader = load(arguments.reader_begin + channel);
  const int32_t last_reader = load(arguments.reader_begin + channel + 1);
  const ChannelLink<A>* readers = gather_readers(arguments.readers, first_reader, last_reader, shared);
  const Strides& to = arguments.grad_intrinsic_strides;
  const T* data = gradient.data + n * gradient.strides.batch;
  const T* output = gradient.output + n * gradient.output_strides.batch;
  const T* intrinsic = gradient.intrinsic + n * gradient.intrinsic_strides.batch +
                       channel * gradient.intrinsic_strides.channel;
  T* result = arguments.grad_intrinsic + n * to.batch + channel * to.channel;
  const auto height = static_cast<int32_t>(arguments.extent.height);
  const auto width = static_cast<int32_t>(arguments.extent.width);
  const int32_t begin = image.remainder * kTileItems;
  const int32_t end = tiling.items - begin < kTileItems ? tiling.items : begin + kTileItems;
  for (int32_t item = begin + static_cast<int32_t>(threadIdx.x); item < end; item += kThreads) {
    const Quotient row = tiling.chunks_per_row.divide(item);
    const int32_t y = row.value;
    T* result_row = result + y * to.y;
    const int32_t x = row.remainder * kChunk<T> - elements_past_boundary(result_row);
    if (x >= width) {
      continue;
    }
    A sums[kChunk<T>] = {};
    A seen[kChunk<T>] = {};
    if (gradient.mask_source == MaskSource::intrinsic) {
      unpack<T>(read_window(intrinsic + y * gradient.intrinsic_strides.y, width, x), seen);
    }
    for (int32_t index = 0; index < last_reader - first_reader; ++index) {
      const ChannelLink<A> reader = readers[index];
      const int32_t reader_y = y - reader.dy;
      if (reader_y < 0 || reader_y >= height) {
        continue;
      }
      if (gradient.mask_source == MaskSource::output) {
        const T* output_row =
            output + reader.output * gradient.output_strides.channel + reader_y * gradient.output_strides.y;
        unpack<T>(read_window(output_row, width, x - reader.dx), seen);
      }
      A gradients[kChunk<T>];
      const T* data_row = data + reader.output * gradient.strides.channel + reader_y * gradient.strides.y;
      unpack<T>(read_window(data_row, width, x - reader.dx), gradients);
#pragma unroll
      for (int lane = 0; lane < kChunk<T>; ++lane) {
        sums[lane] += passed(gradient, reader, gradients[lane], seen[lane]);
      }
    }
    write_chunk(result_row, width, x, pack<T>(sums));
  }
}

// The gradient of one element of the intrinsic map, which `count` readers read.
template <typename T>
__device__ __forceinline__ accumulator_t<T> gather_element(const ShiftConcatBackwardArguments<T>& arguments,
                                                           const ChannelLink<accumulator_t<T>>* readers,
                                                           int32_t count, int64_t n, int32_t channel,
                                                           int32_t y, int32_t x) {
  using A = accumulator_t<T>;
  const OutputGradient<T>& gradient = arguments.gradient;
  const Strides& from = gradient.strides;
  const Strides& out = gradient.output_strides;
  const Strides& in = gradient.intrinsic_strides;
  A seen = A(0);
  if (gradient.mask_source == MaskSource::intrinsic) {
    seen = widen(load(gradient.intrinsic + n * in.batch + channel * in.channel + y * in.y + x * in.x));
  }
  A sum = A(0);
  for (int32_t index = 0; index < count; ++index) {
    const ChannelLink<A> reader = readers[index];
    const int32_t reader_y = y - reader.dy;
    const int32_t reader_x = x - reader.dx;
    if (reader_y < 0 || reader_y >= arguments.extent.height || reader_x < 0 ||
        reader_x >= arguments.extent.width) {
      continue;
    }
    if (gradient.mask_source == MaskSource::output) {
      seen = widen(load(gradient.output + n * out.batch + reader.output * out.channel + reader_y * out.y +
                        reader_x * out.x));
    }
    const A value = widen(load(gradient.data + n * from.batch + reader.output * from.channel +
                               reader_y * from.y + reader_x * from.x));
    sum += passed(gradient, reader, value, seen);
  }
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAsked<T>)
    shift_concat_backward_pixels(const ShiftConcatBackwardArguments<T> arguments, const PixelTiling tiling) {
  using A = accumulator_t<T>;
  __shared__ ChannelLink<A> shared[kSharedReaders];
  const Quotient tile = tiling.pixel_tiles.divide(static_cast<int32_t>(blockIdx.x));
  const Quotient image = tiling.group_tiles.divide(tile.value);
  const int64_t n = tiling.first_image + image.value;
  const int32_t first_group = image.remainder * tiling.groups_tile;
  const int32_t last_group =
      tiling.groups - first_group < tiling.groups_tile ? tiling.groups : first_group + tiling.groups_tile;
  const int32_t first_reader = load(arguments.reader_begin + first_group * kChunk<T>);
  const ChannelLink<A>* readers = gather_readers(
      arguments.readers, first_reader, load(arguments.reader_begin + last_group * kChunk<T>), shared);
  const int32_t column = static_cast<int32_t>(threadIdx.x) / tiling.groups_tile;
  const int32_t group = first_group + static_cast<int32_t>(threadIdx.x) - column * tiling.groups_tile;
  if (group >= tiling.groups || column >= tiling.pixels_step) {
    return;
  }
  const int32_t* reader_begin = arguments.reader_begin + group * kChunk<T>;
  const Strides& to = arguments.grad_intrinsic_strides;
  T* result = arguments.grad_intrinsic + n * to.batch + group * kChunk<T>;
  const int32_t span = tiling.pixels_step * kPixelSteps;
  const int32_t begin = tile.remainder * span;
  const int32_t end = tiling.pixels - begin < span ? tiling.pixels : begin + span;
  for (int32_t pixel = begin + column; pixel < end; pixel += tiling.pixels_step) {
    const Quotient row = tiling.width.divide(pixel);
    A sums[kChunk<T>];
#pragma unroll
    for (int index = 0; index < kChunk<T>; ++index) {
      const int32_t channel_reader = load(reader_begin + index);
      sums[index] = gather_element(arguments, readers + (channel_reader - first_reader),
                                   load(reader_begin + index + 1) - channel_reader, n,
                                   group * kChunk<T> + index, row.value, row.remainder);
    }
    store_chunk(result + row.value * to.y + row.remainder * to.x, pack<T>(sums));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAsked<T>)
    shift_concat_backward_elements(const ShiftConcatBackwardArguments<T> arguments,
                                   const ElementTiling tiling) {
  const Quotient tile = tiling.tiles.divide(static_cast<int32_t>(blockIdx.x));
  const Quotient image = tiling.height.divide(tile.value);
  const int64_t n = tiling.first_image + image.value;
  const int32_t y = image.remainder;
  const Strides& to = arguments.grad_intrinsic_strides;
  const int32_t begin = tile.remainder * kTileItems;
  const int32_t end = tiling.items - begin < kTileItems ? tiling.items : begin + kTileItems;
  for (int32_t item = begin + static_cast<int32_t>(threadIdx.x); item < end; item += kThreads) {
    const Quotient inner = tiling.inner.divide(item);
    const int32_t channel = tiling.channels_innermost ? inner.remainder : inner.value;
    const int32_t x = tiling.channels_innermost ? inner.value : inner.remainder;
    const int32_t first_reader = load(arguments.reader_begin + channel);
    const int32_t last_reader = load(arguments.reader_begin + channel + 1);
    store(arguments.grad_intrinsic + n * to.batch + channel * to.channel + y * to.y + x * to.x,
          narrow<T>(gather_element(arguments, arguments.readers + first_reader, last_reader - first_reader, n,
                                   channel, y, x)));
  }
}

template <typename T>
bool can_take_rows(const ShiftConcatBackwardArguments<T>& arguments) {
  const OutputGradient<T>& gradient = arguments.gradient;
  return gradient.strides.x == 1 && arguments.grad_intrinsic_strides.x == 1 &&
         (gradient.mask_source != MaskSource::output || gradient.output_strides.x == 1) &&
         (gradient.mask_source != MaskSource::intrinsic || gradient.intrinsic_strides.x == 1);
}

template <typename T>
bool can_take_pixels(const ShiftConcatBackwardArguments<T>& arguments) {
  return arguments.intrinsic_channels % kChunk<T> == 0 &&
         pixels_aligned(arguments.grad_intrinsic, arguments.grad_intrinsic_strides);
}

template <typename T>
ShiftConcatBackwardPath shift_concat_backward_path(const ShiftConcatBackwardArguments<T>& arguments) {
  return can_take_rows(arguments) && fills_rows<T>(arguments.extent) ? ShiftConcatBackwardPath::rows
         : can_take_pixels(arguments)                                ? ShiftConcatBackwardPath::pixels
                                                                     : ShiftConcatBackwardPath::elements;
}

template <typename T>
void launch_shift_concat_backward(const ShiftConcatBackwardArguments<T>& arguments,
                                  ShiftConcatBackwardPath path, cudaStream_t stream) {
  switch (path) {
    case ShiftConcatBackwardPath::rows: {
      RowTiling tiling =
          RowTiling::of<T>(arguments.extent, arguments.intrinsic_channels,
                           rows_aligned(arguments.grad_intrinsic, arguments.grad_intrinsic_strides));
      launch_in_batches(arguments.extent.batch, tiling.blocks_per_image, [&](int64_t first, int64_t blocks) {
        tiling.first_image = first;
        launch("shift_concat_backward_rows", shift_concat_backward_rows<T>, blocks, kThreads, stream,
               arguments, tiling);
      });
      break;
    }
    case ShiftConcatBackwardPath::pixels: {
      PixelTiling tiling = PixelTiling::of<T>(arguments.extent, arguments.intrinsic_channels);
      launch_in_batches(arguments.extent.batch, tiling.blocks_per_image, [&](int64_t first, int64_t blocks) {
        tiling.first_image = first;
        launch("shift_concat_backward_pixels", shift_concat_backward_pixels<T>, blocks, kThreads, stream,
               arguments, tiling);
      });
      break;
    }
    case ShiftConcatBackwardPath::elements: {
      ElementTiling tiling = ElementTiling::of(arguments.extent, arguments.intrinsic_channels,
                                               arguments.grad_intrinsic_strides.channel == 1);
      launch_in_batches(arguments.extent.batch, tiling.blocks_per_image, [&](int64_t first, int64_t blocks) {
        tiling.first_image = first;
        launch("shift_concat_backward_elements", shift_concat_backward_elements<T>, blocks, kThreads, stream,
               arguments, tiling);
      });
      break;
    }
  }
}

}  // namespace ghostsr::cuda
