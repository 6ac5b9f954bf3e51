#include "core/simd/kernels.h"
#include "core/simd/lanes.h"

// All channels of a pixel together: the path of channels_last maps.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

// Pixels and intrinsic channels whose sums are kept in the first-level cache.
constexpr int64_t kTilePixels = 8;
constexpr int64_t kTileChannels = 64;
constexpr int64_t kPitch = kTileChannels + 1;  // with a place for what nobody wants

constexpr int64_t kBlocks = 32;
static_assert(kBlocks * kLanes >= kMostPixelReaders + kLanes);

// Eight readers. The pointers stand where what they read of the row's pixel 0 is.
template <typename T>
struct ReaderBlock {
  using A = accumulator_t<T>;
  const T* gradient[kLanes];
  const T* output[kLanes];
  lanes_t<A> gain;
  lanes_t<A> bias;
  int32_t channel[kLanes];  // of the tile, that each one reads
  int32_t dx[kLanes];
  bool run;  // the eight are neighbours, and so are the channels that they read
};

template <typename T>
struct RowPointers {
  const T* gradient;   // pixel 0 of batch n, row 0
  const T* output;     // the same of the output, or null
  const T* intrinsic;  // pixel 0 of the row, or null
  T* result;           // pixel 0 of the row
};

// The readers of some intrinsic channels in one row.
template <typename T>
struct RowReaders {
  ReaderBlock<T> blocks[kBlocks];
  int64_t count = 0;  // of blocks
  int64_t lanes = 0;  // taken of the last block
  int64_t reach = 0;  // largest |dx|
};

template <typename T>
[[gnu::always_inline]] inline void set_lane(const ShiftConcatBackwardParams<T>& params,
                                            const RowPointers<T>& row, int64_t y, int64_t reader,
                                            int64_t channel, ReaderBlock<T>& block, int64_t lane) {
  using A = accumulator_t<T>;
  const ChannelOrigin& origin = params.origins[reader];
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  block.gradient[lane] = row.gradient + (y - origin.dy) * grad.y - origin.dx * grad.x + reader;
  block.output[lane] =
      row.output == nullptr ? nullptr : row.output + (y - origin.dy) * out.y - origin.dx * out.x + reader;
  block.gain[lane] = static_cast<A>(origin.gain * params.residual_scale);
  block.bias[lane] = static_cast<A>(origin.bias * params.residual_scale);
  block.channel[lane] = static_cast<int32_t>(channel);
  block.dx[lane] = origin.dx;
}

// The output channel that is intrinsic channel c itself.
template <typename T>
[[gnu::always_inline]] inline int64_t own_output(const ShiftConcatBackwardParams<T>& params, int64_t c) {
  int64_t index = params.reader_begin[c];
  while (params.origins[params.readers[index]].ghost >= 0) {
    ++index;
  }
  return params.readers[index];
}

template <typename T>
[[gnu::always_inline]] inline bool is_run(const ShiftConcatBackwardParams<T>& params, int64_t c,
                                          int64_t last) {
  bool run = c + kLanes <= last;
  for (int64_t lane = 1; run && lane < kLanes; ++lane) {
    run = own_output(params, c + lane) == own_output(params, c) + lane;
  }
  return run;
}

template <typename T>
void add_single(const ShiftConcatBackwardParams<T>& params, const RowPointers<T>& row, int64_t y,
                int64_t reader, int64_t channel, RowReaders<T>& readers) {
  const ChannelOrigin& origin = params.origins[reader];
  if (y - origin.dy < 0 || y - origin.dy >= params.extent.height) {
    return;
  }
  const int64_t distance = origin.dx < 0 ? -origin.dx : origin.dx;
  readers.reach = distance > readers.reach ? distance : readers.reach;
  if (readers.count == 0 || readers.lanes == kLanes) {
    ReaderBlock<T>& block = readers.blocks[readers.count++];
    block.run = false;
    readers.lanes = 0;
    // Lanes that stay free repeat the first one, and add to what nobody wants.
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      set_lane(params, row, y, reader, kTileChannels, block, lane);
    }
  }
  set_lane(params, row, y, reader, channel, readers.blocks[readers.count - 1], readers.lanes++);
}

template <typename T>
void collect_readers(const ShiftConcatBackwardParams<T>& params, const RowPointers<T>& row, int64_t y,
                     int64_t first, int64_t last, RowReaders<T>& readers) {
  readers.count = 0;
  readers.lanes = kLanes;
  readers.reach = 0;
  int64_t singles = first;  // channels from here on have no run
  for (; is_run(params, singles, last); singles += kLanes) {
    ReaderBlock<T>& block = readers.blocks[readers.count++];
    block.run = true;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      set_lane(params, row, y, own_output(params, singles + lane), singles + lane - first, block, lane);
    }
  }
  for (int64_t c = first; c < last; ++c) {
    for (int64_t index = params.reader_begin[c]; index < params.reader_begin[c + 1]; ++index) {
      const int64_t reader = params.readers[index];
      if (c >= singles || params.origins[reader].ghost >= 0) {
        add_single(params, row, y, reader, c - first, readers);
      }
    }
  }
}

template <ReluWitness kWitness, bool kRun, typename T>
[[gnu::always_inline]] inline void add_block(const ShiftConcatBackwardParams<T>& params,
                                             const ReaderBlock<T>& block, const T* intrinsic, int64_t begin,
                                             int64_t end, accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  for (int64_t x = begin; x < end; ++x, sums += kPitch) {
    const int64_t at = x * params.grad_output_strides.x;
    lanes_t<A> value = kRun ? load(block.gradient[0] + at) : gather(block.gradient, at);
    value = value * block.gain;
    if constexpr (kWitness == ReluWitness::output) {
      const int64_t output_at = x * params.output_strides.x;
      value = keep_where_positive(kRun ? load(block.output[0] + output_at) : gather(block.output, output_at),
                                  value);
    } else if constexpr (kWitness == ReluWitness::intrinsic) {
      const T* pixel = intrinsic + x * params.intrinsic_strides.x;
      lanes_t<A> seen;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        // The place that nobody wants has no pixel of its own.
        seen[lane] = block.channel[lane] < kTileChannels ? A(pixel[block.channel[lane]]) : A(0);
      }
      value = keep_where_positive(seen * block.gain + block.bias, value);
    }
    if constexpr (kRun) {
      auto* sum = reinterpret_cast<lanes_t<A>*>(sums + block.channel[0]);
      *sum += value;
    } else {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        sums[block.channel[lane]] += value[lane];
      }
    }
  }
}

// The same for one pixel near the left or right edge, where some readers lie outside.
template <ReluWitness kWitness, typename T>
void add_block_at_edge(const ShiftConcatBackwardParams<T>& params, const ReaderBlock<T>& block,
                       const T* intrinsic, int64_t x, accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const int64_t reader_x = x - block.dx[lane];
    const int64_t channel = block.channel[lane];
    if (channel == kTileChannels || reader_x < 0 || reader_x >= params.extent.width) {
      continue;
    }
    bool passed = true;
    if constexpr (kWitness == ReluWitness::output) {
      passed = A(block.output[lane][x * params.output_strides.x]) > A(0);
    } else if constexpr (kWitness == ReluWitness::intrinsic) {
      const A seen = A(intrinsic[x * params.intrinsic_strides.x + channel]);
      passed = seen * block.gain[lane] + block.bias[lane] > A(0);
    }
    if (passed) {
      sums[channel] += A(block.gradient[lane][x * params.grad_output_strides.x]) * block.gain[lane];
    }
  }
}

template <ReluWitness kWitness, typename T>
void backward_tile(const ShiftConcatBackwardParams<T>& params, const RowReaders<T>& readers,
                   const T* intrinsic, int64_t channels, int64_t begin, int64_t end, T* result) {
  using A = accumulator_t<T>;
  A sums[kTilePixels * kPitch];
  for (int64_t index = 0; index < (end - begin) * kPitch; ++index) {
    sums[index] = A(0);
  }
  const bool interior = begin >= readers.reach && end <= params.extent.width - readers.reach;
  for (int64_t index = 0; index < readers.count; ++index) {
    const ReaderBlock<T>& block = readers.blocks[index];
    if (block.run) {
      add_block<kWitness, true>(params, block, intrinsic, begin, end, sums);
    } else if (interior) {
      add_block<kWitness, false>(params, block, intrinsic, begin, end, sums);
    } else {
      for (int64_t x = begin; x < end; ++x) {
        add_block_at_edge<kWitness>(params, block, intrinsic, x, sums + (x - begin) * kPitch);
      }
    }
  }
  for (int64_t x = begin; x < end; ++x) {
    T* pixel = result + x * params.grad_intrinsic_strides.x;
    const A* from = sums + (x - begin) * kPitch;
    for (int64_t channel = 0; channel < channels; ++channel) {
      pixel[channel] = T(from[channel]);
    }
  }
}

template <ReluWitness kWitness, typename T>
void backward_row(const ShiftConcatBackwardParams<T>& params, int64_t n, int64_t y) {
  const Strides& in = params.intrinsic_strides;
  const Strides& to = params.grad_intrinsic_strides;
  const RowPointers<T> row{
      params.grad_output + n * params.grad_output_strides.batch,
      kWitness == ReluWitness::output ? params.output + n * params.output_strides.batch : nullptr,
      kWitness == ReluWitness::intrinsic ? params.intrinsic + n * in.batch + y * in.y : nullptr,
      params.grad_intrinsic + n * to.batch + y * to.y,
  };
  const int64_t channels = params.intrinsic_channels;
  const int64_t width = params.extent.width;
  RowReaders<T> readers;
  for (int64_t first = 0, last = 0; first < channels; first = last) {
    do {
      ++last;
    } while (last < channels && last - first < kTileChannels &&
             params.reader_begin[last + 1] - params.reader_begin[first] <= kMostPixelReaders);
    collect_readers(params, row, y, first, last, readers);
    const T* intrinsic = kWitness == ReluWitness::intrinsic ? row.intrinsic + first : nullptr;
    // Tiles start behind the left edge's pixels, so that one tile alone pays for either edge.
    const int64_t edge = readers.reach < kTilePixels ? readers.reach : 0;
    int64_t end = edge < width ? edge : width;
    for (int64_t begin = 0; begin < width; begin = end) {
      end = begin == 0 && edge > 0 ? end : begin + kTilePixels < width ? begin + kTilePixels : width;
      backward_tile<kWitness>(params, readers, intrinsic, last - first, begin, end, row.result + first);
    }
  }
}

}  // namespace

template <typename T>
void shift_concat_backward_pixels(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    const int64_t y = task % params.extent.height;
    const int64_t n = task / params.extent.height;
    switch (params.witness) {
      case ReluWitness::none:
        backward_row<ReluWitness::none>(params, n, y);
        break;
      case ReluWitness::output:
        backward_row<ReluWitness::output>(params, n, y);
        break;
      case ReluWitness::intrinsic:
        backward_row<ReluWitness::intrinsic>(params, n, y);
        break;
    }
  }
}

template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<float>&, int64_t, int64_t);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<double>&, int64_t, int64_t);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<Float16>&, int64_t, int64_t);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<BFloat16>&, int64_t, int64_t);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
