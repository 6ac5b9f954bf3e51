#pragma once

#include "activation.cuh"
#include "device_tables.cuh"
#include "pixel_ring.cuh"
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

// Channels of the output that a block makes.
template <typename T>
constexpr int32_t kMostPartGroups = kSharedLinks / kChunk<T> < kThreads ? kSharedLinks / kChunk<T> : kThreads;

// Four blocks of a multiprocessor of 228 KiB keep as much, with their tables.
template <typename T>
constexpr int kMapRingBytes =
    46 * 1024 - kSharedLinks * static_cast<int>(sizeof(ChannelEpilogue<accumulator_t<T>>));
// No more than a multiprocessor's shared memory holds.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
template <typename T>
constexpr int kStripBlocksAsked = 2;
#else
template <typename T>
constexpr int kStripBlocksAsked = sizeof(T) == 8 ? 2 : 3;
#endif
// Wider strips would leave too few blocks to a small map.
constexpr int32_t kMostStripWidth = 32;

// The ring of a strip of the intrinsic map, with a row to spare. A word is an element of the map.
template <typename T>
__host__ __device__ __forceinline__ PixelRing map_ring(const ShiftConcatArguments<T>& arguments,
                                                       ShiftRange shifts, int32_t width) {
  // So that a row can be staged while another is made.
  ++shifts.most_y;
  return PixelRing::of(shifts, arguments.tables.intrinsic_channels, 0, width,
                       kMapRingBytes<T> / static_cast<int32_t>(sizeof(T)));
}

// The shifts of `count` channels. Every thread of the block must call it.
template <typename A>
__device__ __forceinline__ ShiftRange shift_range(const ChannelEpilogue<A>* epilogues, int32_t count) {
  constexpr int32_t kParts = 32;
  __shared__ ShiftRange parts[kParts];
  const auto thread = static_cast<int32_t>(threadIdx.x);
  if (thread < kParts) {
    ShiftRange range{};
    for (int32_t index = thread; index < count; index += kParts) {
      widen_range(range, epilogues[index].dy, epilogues[index].dx);
    }
    parts[thread] = range;
  }
  __syncthreads();
  ShiftRange range{};
  for (int32_t part = 0; part < kParts; ++part) {
    widen_range(range, parts[part].least_y, parts[part].least_x);
    widen_range(range, parts[part].most_y, parts[part].most_x);
  }
  return range;
}

// Copies a row of the intrinsic map to a row of the ring, by sixteen bytes. Zero outside the map.
template <typename T>
__device__ __forceinline__ void stage_map_row(const ShiftConcatArguments<T>& arguments, const PixelRing& ring,
                                              uint4* row, int64_t n, int32_t y, int32_t x_begin) {
  constexpr int kCopies = 2;  // that a thread has under way at a time
  const Strides& in = arguments.intrinsic_strides;
  const int32_t groups = arguments.tables.intrinsic_channels / kChunk<T>;
  const bool row_inside = y >= 0 && y < arguments.extent.height;
  const T* data = arguments.intrinsic + n * in.batch + y * in.y;
  const int32_t chunks = ring.width * groups;
  for (auto first = static_cast<int32_t>(threadIdx.x); first < chunks; first += kThreads * kCopies) {
    uint4 bits[kCopies];
#pragma unroll
    for (int index = 0; index < kCopies; ++index) {
      const int32_t chunk = first + index * kThreads;
      const int32_t pixel = chunk / groups;
      const int32_t x = x_begin + pixel;
      bits[index] = make_uint4(0, 0, 0, 0);
      if (row_inside && x >= 0 && x < arguments.extent.width && chunk < chunks) {
        bits[index] = load_chunk(data + x * in.x + (chunk - pixel * groups) * kChunk<T>);
      }
    }
#pragma unroll
    for (int index = 0; index < kCopies; ++index) {
      if (first + index * kThreads < chunks) {
        row[first + index * kThreads] = bits[index];
      }
    }
  }
}

// What a thread makes of each pixel: a chunk of channels, whose origins it keeps in registers.
template <typename T>
struct ChunkEpilogue {
  using A = accumulator_t<T>;

  const ChannelEpilogue<A>* own;
  int32_t channel;
  A gains[kChunk<T>];
  A biases[kChunk<T>];
  int32_t radius;
  bool together;  // whether one chunk of a pixel holds the origins

  __device__ __forceinline__ ChunkEpilogue(const ChannelEpilogue<A>* own_epilogues, int32_t first_channel)
      : own(own_epilogues), channel(first_channel), radius(0), together(own->source % kChunk<T> == 0) {
#pragma unroll
    for (int index = 0; index < kChunk<T>; ++index) {
      const ChannelEpilogue<A>& link = own[index];
      gains[index] = link.gain;
      biases[index] = link.inside;
      together = together && link.source == own->source + index && link.dy == own->dy && link.dx == own->dx;
      radius = link.dy > radius ? link.dy : -link.dy > radius ? -link.dy : radius;
      radius = link.dx > radius ? link.dx : -link.dx > radius ? -link.dx : radius;
    }
  }

  // read_all() returns the origins' chunk of a pixel where they lie together, read(index) one of them.
  template <typename ReadAll, typename Read>
  __device__ __forceinline__ void make(const ShiftConcatArguments<T>& arguments, int64_t n, int32_t y,
                                       int32_t x, const ReadAll& read_all, const Read& read) const {
    const Strides& res = arguments.residual_strides;
    const Strides& out = arguments.output_strides;
    const auto height = static_cast<int32_t>(arguments.extent.height);
    const auto width = static_cast<int32_t>(arguments.extent.width);
    A values[kChunk<T>];
    if (y >= radius && y < height - radius && x >= radius && x < width - radius) {
      if (together) {
        unpack<T>(read_all(), values);
      } else {
#pragma unroll
        for (int index = 0; index < kChunk<T>; ++index) {
          values[index] = widen(read(index));
        }
      }
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = values[index] * gains[index] + biases[index];
      }
    } else {
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        const int32_t source_y = y + own[index].dy;
        const int32_t source_x = x + own[index].dx;
        const bool inside = source_y >= 0 && source_y < height && source_x >= 0 && source_x < width;
        values[index] = inside ? widen(read(index)) * gains[index] + biases[index] : own[index].outside;
      }
    }
    if (arguments.residual != nullptr) {
      A residuals[kChunk<T>];
      unpack<T>(load_chunk(arguments.residual + n * res.batch + y * res.y + x * res.x + channel), residuals);
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = residuals[index] + values[index];
      }
    }
    activate_chunk(arguments.tables.activation.kind, values);
    store_chunk(arguments.output + n * out.batch + y * out.y + x * out.x + channel, pack<T>(values));
  }

  // In loops of their own, because the compiler would branch at every element.
  __device__ __forceinline__ void activate_chunk(ActivationKind kind, A (&values)[kChunk<T>]) const {
    if (kind == ActivationKind::relu) {
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = activate(ActivationKind::relu, values[index], A(0));
      }
    } else if (kind == ActivationKind::leaky) {
#pragma unroll
      for (int index = 0; index < kChunk<T>; ++index) {
        values[index] = activate(ActivationKind::leaky, values[index], own[index].slope);
      }
    }
  }
};

// A block walks down a strip of pixels. The rows of the intrinsic map that a row of pixels is made of are a
// ring in shared memory: each is read from memory once, by sixteen bytes.
template <typename T>
__global__ void __launch_bounds__(kThreads, kStripBlocksAsked<T>)
    shift_concat_pixels(const ShiftConcatArguments<T> arguments, const StripTiling tiling) {
  using A = accumulator_t<T>;
  __shared__ ChannelEpilogue<A> epilogues[kSharedLinks];
  __shared__ uint4 memory[kMapRingBytes<T> / kChunkBytes];
  const StripPlace place = tiling.place(arguments.extent);
  const Strip& strip = place.strip;
  const int64_t n = place.image;
  const int32_t all_groups = (arguments.tables.intrinsic_channels + arguments.tables.ghosts) / kChunk<T>;
  const int32_t first_group = place.part * kMostPartGroups<T>;
  const int32_t groups =
      all_groups - first_group < kMostPartGroups<T> ? all_groups - first_group : kMostPartGroups<T>;
  resolve_epilogues(arguments, first_group * kChunk<T>, groups * kChunk<T>, epilogues);
  const ShiftRange shifts = shift_range(epilogues, groups * kChunk<T>);
  const PixelRing ring = map_ring(arguments, shifts, strip.width);
  const bool staged = tiling.staged && ring.strip_width >= kLeastStagedWidth;
  const int32_t columns = kThreads / groups;
  const int32_t column = static_cast<int32_t>(threadIdx.x) / groups;
  const int32_t group = static_cast<int32_t>(threadIdx.x) - column * groups;
  ChunkEpilogue<T> epilogue(epilogues + group * kChunk<T>, (first_group + group) * kChunk<T>);
  const Strides& in = arguments.intrinsic_strides;
  if (!staged) {
    if (column >= columns) {
      return;
    }
    epilogue.together = epilogue.together && pixels_aligned(arguments.intrinsic, in);
#pragma unroll 1
    for (int32_t y = strip.y_begin; y < strip.y_end; ++y) {
#pragma unroll 1
      for (int32_t pixel = column; pixel < strip.width; pixel += columns) {
        const int32_t x = strip.x_begin + pixel;
        const T* here = arguments.intrinsic + n * in.batch + y * in.y + x * in.x;
        const auto origin = [&](int index) {
          const ChannelEpilogue<A>& link = epilogue.own[index];
          return here + link.source + link.dy * in.y + link.dx * in.x;
        };
        epilogue.make(
            arguments, n, y, x, [&] { return load_chunk(origin(0)); },
            [&](int index) { return load(origin(index)); });
      }
    }
    return;
  }
  int32_t offsets[kChunk<T>];
#pragma unroll
  for (int index = 0; index < kChunk<T>; ++index) {
    const ChannelEpilogue<A>& link = epilogue.own[index];
    offsets[index] = link.source + ring.offset(link.dy, link.dx);
  }
  const T* words = reinterpret_cast<const T*>(memory);
  const int32_t row_chunks = ring.row_words / kChunk<T>;
  for (int32_t x_begin = strip.x_begin; x_begin < strip.x_begin + strip.width; x_begin += ring.strip_width) {
    const int32_t left = strip.x_begin + strip.width - x_begin;
    const int32_t width = left < ring.strip_width ? left : ring.strip_width;
    __syncthreads();
    for (int32_t row = 0; row < ring.rows - 1; ++row) {
      stage_map_row(arguments, ring, memory + row * row_chunks, n, strip.y_begin + shifts.least_y + row,
                    x_begin + shifts.least_x);
    }
    int32_t current = -shifts.least_y;  // the ring's row of y
    for (int32_t y = strip.y_begin; y < strip.y_end; ++y) {
      __syncthreads();
      if (y + 1 < strip.y_end) {
        // The spare row becomes the lowest, and the one that no further row is made of the spare one.
        stage_map_row(arguments, ring, memory + ring.wrap_row(current + shifts.most_y + 1) * row_chunks, n,
                      y + 1 + shifts.most_y, x_begin + shifts.least_x);
      }
      for (int32_t pixel = column < columns ? column : width; pixel < width; pixel += columns) {
        const int32_t here = current * ring.row_words + (pixel - shifts.least_x) * ring.pixel_words;
        epilogue.make(
            arguments, n, y, x_begin + pixel,
            [&] { return memory[ring.wrap(here + offsets[0]) / kChunk<T>]; },
            [&](int index) { return words[ring.wrap(here + offsets[index])]; });
      }
      current = ring.wrap_row(current + 1);
    }
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
      const auto map_width = checked_int("columns", arguments.extent.width);
      const bool staged = arguments.tables.intrinsic_channels % kChunk<T> == 0 &&
                          pixels_aligned(arguments.intrinsic, arguments.intrinsic_strides);
      const int32_t width =
          map_ring(arguments, kUsualShifts, map_width < kMostStripWidth ? map_width : kMostStripWidth)
              .strip_width;
      StripTiling tiling = StripTiling::of(arguments.extent, staged ? width : 0,
                                           divide_up(channels, kMostPartGroups<T> * kChunk<T>));
      launch_in_batches(arguments.extent.batch, tiling.blocks_per_image, [&](int64_t first, int64_t blocks) {
        tiling.first_image = first;
        launch("shift_concat_pixels", shift_concat_pixels<T>, blocks, kThreads, stream, arguments, tiling);
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
