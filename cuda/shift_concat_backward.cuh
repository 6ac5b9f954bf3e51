#pragma once

#include "activation.cuh"
#include "device_tables.cuh"
#include "pixel_ring.cuh"
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

// A chunk of channels of a column of pixels, one element after the other.
template <typename T>
__device__ __forceinline__ void gather_strip(const ShiftConcatBackwardArguments<T>& arguments, int64_t n,
                                             const Strip& strip) {
  const Strides& to = arguments.grad_intrinsic_strides;
  const int32_t groups = arguments.intrinsic_channels / kChunk<T>;
  for (int32_t y = strip.y_begin; y < strip.y_end; ++y) {
    for (auto item = static_cast<int32_t>(threadIdx.x); item < strip.width * groups; item += kThreads) {
      const int32_t column = item / groups;
      const int32_t first = (item - column * groups) * kChunk<T>;
      const int32_t x = strip.x_begin + column;
      accumulator_t<T> sums[kChunk<T>];
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        const int32_t begin = load(arguments.reader_begin + first + index);
        sums[index] =
            gather_element(arguments, arguments.readers + begin,
                           load(arguments.reader_begin + first + index + 1) - begin, n, first + index, y, x);
      }
      store_chunk(arguments.grad_intrinsic + n * to.batch + y * to.y + x * to.x + first, pack<T>(sums));
    }
  }
}

// As many as a multiprocessor's shared memory holds.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
template <typename T>
constexpr int kGradientBlocksAsked = sizeof(T) == 4 ? 3 : 2;
#else
template <typename T>
constexpr int kGradientBlocksAsked = sizeof(T) == 8 ? 3 : 4;
#endif
// Channels of the output that a block keeps tables of.
constexpr int kMostStagedChannels = 384;

// What a block keeps in shared memory of the tables.
template <typename A>
struct StagedTables {
  alignas(16) A gains[kMostStagedChannels];  // of each output channel, times residual_scale
  alignas(16) A slopes[kMostStagedChannels];
  int32_t readers[kMostStagedChannels];  // the word of each in the ring, from that of the pixel that it reads
  int32_t begin[kMostStagedChannels + 1];  // readers[begin[c] .. begin[c + 1]) read channel c
};

// Together with the tables all that a block can have without asking for more.
template <typename T>
constexpr int kGradientRingWords = (48 * 1024 - static_cast<int>(sizeof(StagedTables<accumulator_t<T>>))) /
                                   static_cast<int>(sizeof(accumulator_t<T>));

// The ring of a strip of gradients, and behind it a row of results.
//
// A word is of the type that sums are kept in. Of a pixel, the first elements of all chunks come first, then
// the second ones, and so on: threads that take neighbouring chunks write to neighbouring banks. The words of
// a pixel are odd in number: so do threads that take neighbouring pixels.
template <typename T>
__host__ __device__ __forceinline__ PixelRing gradient_ring(const ShiftConcatBackwardArguments<T>& arguments,
                                                            const ShiftRange& reads, int32_t width) {
  return PixelRing::of(reads, arguments.channels | 1, arguments.intrinsic_channels | 1, width,
                       kGradientRingWords<T>);
}

// In loops of their own, because the compiler would branch at every element.
template <typename T>
__device__ __forceinline__ void undo_activation(ActivationKind kind,
                                                const accumulator_t<T> (&seen)[kChunk<T>],
                                                const accumulator_t<T>* slopes,
                                                accumulator_t<T> (&gradients)[kChunk<T>]) {
  if (kind == ActivationKind::relu) {
#pragma unroll
    for (int lane = 0; lane < kChunk<T>; ++lane) {
      gradients[lane] = activation_gradient(ActivationKind::relu, seen[lane], gradients[lane], slopes[lane]);
    }
  } else {
#pragma unroll
    for (int lane = 0; lane < kChunk<T>; ++lane) {
      gradients[lane] = activation_gradient(ActivationKind::leaky, seen[lane], gradients[lane], slopes[lane]);
    }
  }
}

// Reads a row of the gradient of the output once, by sixteen bytes, and keeps in a row of the ring what the
// activation let through of it, times the gains. Zero outside the map.
template <typename T>
struct RowStager {
  using A = accumulator_t<T>;
  // Pixels that a thread has under way at a time.
  static constexpr int kPixels = sizeof(T) == 2 ? 2 : 3;

  int32_t groups;  // chunks of a pixel
  int32_t column;
  int32_t columns;
  int32_t group;
  const A* gains;  // of the chunk's channels
  const A* slopes;

  __device__ __forceinline__ void stage(const ShiftConcatBackwardArguments<T>& arguments,
                                        const PixelRing& ring, A* row, int64_t n, int32_t y,
                                        int32_t x_begin) const {
    const OutputGradient<T>& gradient = arguments.gradient;
    const Strides& from = gradient.strides;
    const Strides& out = gradient.output_strides;
    const bool masked = gradient.mask_source == MaskSource::output;
    const bool row_inside = y >= 0 && y < arguments.extent.height;
    const T* data = gradient.data + n * from.batch + y * from.y + group * kChunk<T>;
    const T* output = gradient.output + n * out.batch + y * out.y + group * kChunk<T>;
    for (int32_t first = column; first < ring.width; first += columns * kPixels) {
      uint4 values[kPixels];
      uint4 seen[kPixels];
#pragma unroll
      for (int index = 0; index < kPixels; ++index) {
        const int32_t x = x_begin + first + index * columns;
        values[index] = make_uint4(0, 0, 0, 0);
        seen[index] = make_uint4(0, 0, 0, 0);
        if (row_inside && x >= 0 && x < arguments.extent.width && first + index * columns < ring.width) {
          values[index] = load_chunk(data + x * from.x);
          if (masked) {
            seen[index] = load_chunk(output + x * out.x);
          }
        }
      }
#pragma unroll
      for (int index = 0; index < kPixels; ++index) {
        const int32_t pixel = first + index * columns;
        if (pixel >= ring.width) {
          continue;
        }
        const int32_t x = x_begin + pixel;
        A moved[kChunk<T>] = {};
        if (row_inside && x >= 0 && x < arguments.extent.width) {
          A signs[kChunk<T>];
          unpack<T>(values[index], moved);
          unpack<T>(seen[index], signs);
#pragma unroll
          for (int lane = 0; lane < kChunk<T>; ++lane) {
            moved[lane] *= gains[lane];
          }
          if (masked) {
            undo_activation<T>(gradient.activation, signs, slopes, moved);
          }
        }
#pragma unroll
        for (int lane = 0; lane < kChunk<T>; ++lane) {
          row[pixel * ring.pixel_words + lane * groups + group] = moved[lane];
        }
      }
    }
  }
};

// The sums of the readers of a chunk of channels at a pixel, whose word in the ring is `here`.
template <typename T>
__device__ __forceinline__ void gather_chunk(const PixelRing& ring, const accumulator_t<T>* words,
                                             const StagedTables<accumulator_t<T>>& tables, int32_t here,
                                             int32_t channel, accumulator_t<T>* result, int32_t step) {
  using A = accumulator_t<T>;
  int32_t begin[kChunk<T> + 1];
  A sums[kChunk<T>] = {};
#pragma unroll
  for (int index = 0; index <= kChunk<T>; ++index) {
    begin[index] = tables.begin[channel + index];
  }
  // Most channels have few readers: theirs are read without waiting for one another.
#pragma unroll
  for (int reader = 0; reader < 2; ++reader) {
#pragma unroll
    for (int index = 0; index < kChunk<T>; ++index) {
      if (begin[index] + reader < begin[index + 1]) {
        sums[index] += words[ring.wrap(here + tables.readers[begin[index] + reader])];
      }
    }
  }
#pragma unroll
  for (int index = 0; index < kChunk<T>; ++index) {
#pragma unroll 1
    for (int32_t reader = begin[index] + 2; reader < begin[index + 1]; ++reader) {
      sums[index] += words[ring.wrap(here + tables.readers[reader])];
    }
    result[index * step] = sums[index];
  }
}

// The sum of the readers of a channel where what the activation saw is made of the element that they read.
template <typename T>
__device__ __forceinline__ accumulator_t<T> gather_masked(const ShiftConcatBackwardArguments<T>& arguments,
                                                          const PixelRing& ring,
                                                          const accumulator_t<T>* words,
                                                          const StagedTables<accumulator_t<T>>& tables,
                                                          int32_t here, int32_t channel,
                                                          accumulator_t<T> seen, int32_t y, int32_t x) {
  using A = accumulator_t<T>;
  const A scale = arguments.gradient.residual_scale;
  A sum = A(0);
#pragma unroll 1
  for (int32_t index = tables.begin[channel]; index < tables.begin[channel + 1]; ++index) {
    const ChannelLink<A> reader = arguments.readers[index];
    const int32_t reader_y = y - reader.dy;
    const int32_t reader_x = x - reader.dx;
    if (reader_y >= 0 && reader_y < arguments.extent.height && reader_x >= 0 &&
        reader_x < arguments.extent.width) {
      sum += activation_gradient(arguments.gradient.activation,
                                 seen * (reader.gain * scale) + reader.bias * scale,
                                 words[ring.wrap(here + tables.readers[index])], reader.slope);
    }
  }
  return sum;
}

// A block walks down a strip of pixels. The rows of the gradient of the output that the readers of a row of
// pixels lie in are a ring in shared memory: each is read from memory once, by sixteen bytes, and gathered
// from by all its readers. Neighbouring threads take neighbouring pixels of the same channels, so that they
// have the same readers; words are dealt so that neither side's accesses meet in a bank.
template <typename T>
__global__ void __launch_bounds__(kThreads, kGradientBlocksAsked<T>)
    shift_concat_backward_pixels(const ShiftConcatBackwardArguments<T> arguments, const RingTiling tiling) {
  using A = accumulator_t<T>;
  __shared__ A words[kGradientRingWords<T>];
  __shared__ StagedTables<A> tables;
  const StripPlace place = tiling.place(arguments.extent);
  const Strip& strip = place.strip;
  const int64_t n = place.image;
  // A reader lies where the shift of its ghost is undone.
  const ShiftRange shifts = *arguments.shift_range;
  const ShiftRange reads{-shifts.most_y, -shifts.least_y, -shifts.most_x, -shifts.least_x};
  const PixelRing ring = gradient_ring(arguments, reads, strip.width);
  if (!tiling.staged || ring.strip_width < kLeastStagedWidth) {
    gather_strip(arguments, n, strip);
    return;
  }
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t groups = arguments.channels / kChunk<T>;
  for (int32_t index = thread; index < arguments.channels; index += kThreads) {
    const ChannelLink<A> reader = arguments.readers[index];
    const int32_t group = reader.output / kChunk<T>;
    tables.readers[index] =
        ring.offset(-reader.dy, -reader.dx) + (reader.output - group * kChunk<T>)*groups + group;
    tables.gains[reader.output] = reader.gain * arguments.gradient.residual_scale;
    tables.slopes[reader.output] = reader.slope;
  }
  for (int32_t index = thread; index <= arguments.intrinsic_channels; index += kThreads) {
    tables.begin[index] = load(arguments.reader_begin + index);
  }
  RowStager<T> stager;
  stager.groups = groups;
  stager.columns = kThreads / groups;
  stager.column = thread / groups;
  stager.group = thread - stager.column * groups;
  stager.gains = tables.gains + stager.group * kChunk<T>;
  stager.slopes = tables.slopes + stager.group * kChunk<T>;
  // Threads that no chunk is left for stage nothing.
  stager.column = stager.column < stager.columns ? stager.column : ring.width;
  const int32_t result_groups = arguments.intrinsic_channels / kChunk<T>;
  const int32_t result_words = arguments.intrinsic_channels | 1;
  A* results = words + ring.rows * ring.row_words;
  const Strides& to = arguments.grad_intrinsic_strides;
  const Strides& in = arguments.gradient.intrinsic_strides;
  const bool by_intrinsic = arguments.gradient.mask_source == MaskSource::intrinsic;
  for (int32_t x_begin = strip.x_begin; x_begin < strip.x_begin + strip.width; x_begin += ring.strip_width) {
    const int32_t left = strip.x_begin + strip.width - x_begin;
    const int32_t width = left < ring.strip_width ? left : ring.strip_width;
    __syncthreads();
    for (int32_t row = 0; row < ring.rows; ++row) {
      stager.stage(arguments, ring, words + row * ring.row_words, n, strip.y_begin + reads.least_y + row,
                   x_begin + reads.least_x);
    }
    int32_t current = -reads.least_y;  // the ring's row of y
    for (int32_t y = strip.y_begin; y < strip.y_end; ++y) {
      __syncthreads();
      const int32_t next_group = kThreads / width;
      const int32_t next_pixel = kThreads - next_group * width;
      int32_t group = thread / width;
      int32_t pixel = thread - group * width;
      while (group < result_groups) {
        const int32_t here = current * ring.row_words + (pixel - reads.least_x) * ring.pixel_words;
        A* result = results + pixel * result_words + group;
        if (by_intrinsic) {
          for (int index = 0; index < kChunk<T>; ++index) {
            const int32_t channel = group * kChunk<T> + index;
            const A seen = widen(load(arguments.gradient.intrinsic + n * in.batch + y * in.y +
                                      (x_begin + pixel) * in.x + channel * in.channel));
            result[index * result_groups] =
                gather_masked(arguments, ring, words, tables, here, channel, seen, y, x_begin + pixel);
          }
        } else {
          gather_chunk<T>(ring, words, tables, here, group * kChunk<T>, result, result_groups);
        }
        group += next_group;
        pixel += next_pixel;
        if (pixel >= width) {
          pixel -= width;
          ++group;
        }
      }
      __syncthreads();
      for (int32_t item = thread; item < width * result_groups; item += kThreads) {
        const int32_t column = item / result_groups;
        const int32_t chunk = item - column * result_groups;
        A sums[kChunk<T>];
#pragma unroll
        for (int index = 0; index < kChunk<T>; ++index) {
          sums[index] = results[column * result_words + index * result_groups + chunk];
        }
        store_chunk(arguments.grad_intrinsic + n * to.batch + y * to.y + (x_begin + column) * to.x +
                        chunk * kChunk<T>,
                    pack<T>(sums));
      }
      if (y + 1 < strip.y_end) {
        // The row that no further row reads from makes room.
        const int32_t oldest = ring.wrap_row(current + 1 + reads.most_y);
        stager.stage(arguments, ring, words + oldest * ring.row_words, n, y + 1 + reads.most_y,
                     x_begin + reads.least_x);
      }
      current = ring.wrap_row(current + 1);
    }
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

// Whether the pixels of the maps read can be read by sixteen bytes.
template <typename T>
bool can_stage(const ShiftConcatBackwardArguments<T>& arguments) {
  const OutputGradient<T>& gradient = arguments.gradient;
  return arguments.channels % kChunk<T> == 0 && pixels_aligned(gradient.data, gradient.strides) &&
         (gradient.mask_source != MaskSource::output ||
          pixels_aligned(gradient.output, gradient.output_strides));
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
      const bool staged = can_stage(arguments) && arguments.channels <= kMostStagedChannels &&
                          arguments.channels / kChunk<T> <= kThreads;
      const auto width = checked_int("columns", arguments.extent.width);
      RingTiling tiling = RingTiling::of(
          arguments.extent, staged ? gradient_ring(arguments, kUsualShifts, width).strip_width : 0);
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
