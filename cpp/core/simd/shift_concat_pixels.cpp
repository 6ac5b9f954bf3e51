#include "core/shift_concat.h"
#include "core/simd/dispatch.h"
#include "core/simd/slopes.h"

// All channels of a pixel together: the path of channels_last maps.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

// Pixels worked on before the next block of channels. Few, so that the output is written almost from end to
// end, which the memory likes; enough to pay for loading a block's pointers.
constexpr int64_t kTilePixels = 4;

// How far ahead of the tile the output is fetched for writing; its lines are too scattered for the hardware
// to see them coming.
constexpr int64_t kPixelsAhead = 8;

// Blocks of channels that are prepared together for a row.
constexpr int64_t kRowBlocks = 32;

template <typename T>
struct RowPointers {
  const T* intrinsic;  // pixel 0 of batch n, row 0
  const T* residual;   // pixel 0 of the row, or null
  T* output;           // pixel 0 of the row
};

template <ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE void finish_element(const ShiftConcatParams<T>& params, const RowPointers<T>& row,
                                          int64_t y, int64_t x, int64_t channel) {
  using A = accumulator_t<T>;
  const ChannelOrigin& origin = params.origins[channel];
  const int64_t source_y = y + origin.dy;
  const int64_t source_x = x + origin.dx;
  const bool inside =
      source_y >= 0 && source_y < params.extent.height && source_x >= 0 && source_x < params.extent.width;
  const Strides& in = params.intrinsic_strides;
  const A value = inside ? A(row.intrinsic[source_y * in.y + source_x * in.x + origin.source]) : A(0);
  A sum = value * static_cast<A>(origin.gain * params.residual_scale) +
          static_cast<A>(origin.bias * params.residual_scale);
  if (row.residual != nullptr) {
    sum = A(row.residual[x * params.residual_strides.x + channel]) + sum;
  }
  row.output[x * params.output_strides.x + channel] =
      T(activate<kActivation>(sum, slope_of<kActivation, A>(params.activation, channel)));
}

// Eight neighbouring output channels. `base` points at what pixel x = 0 reads.
template <typename T>
struct Block {
  const T* base[kGroup];
  Group<accumulator_t<T>> gain;
  Group<accumulator_t<T>> bias;
  Group<accumulator_t<T>> slope;
  bool run;  // the eight channels read eight neighbouring intrinsic ones
};

template <ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE Block<T> make_block(const ShiftConcatParams<T>& params, const RowPointers<T>& row,
                                          int64_t y, int64_t channel) {
  using A = accumulator_t<T>;
  const Strides& in = params.intrinsic_strides;
  Block<T> block;
  block.slope = slopes_of<kActivation, A>(params.activation, channel);
  block.run = true;
  for (int64_t lane = 0; lane < kGroup; ++lane) {
    const ChannelOrigin& origin = params.origins[channel + lane];
    int64_t source_y = y + origin.dy;
    // A row outside the map is replaced by one inside, and what it gave is overwritten afterwards.
    source_y = source_y < 0 || source_y >= params.extent.height ? y : source_y;
    block.base[lane] = row.intrinsic + source_y * in.y + origin.dx * in.x + origin.source;
    block.gain[lane] = static_cast<A>(origin.gain * params.residual_scale);
    block.bias[lane] = static_cast<A>(origin.bias * params.residual_scale);
    block.run = block.run && block.base[lane] == block.base[0] + lane;
  }
  return block;
}

template <typename T>
GHOSTSR_ALWAYS_INLINE void fetch_for_writing(const T* output, int64_t output_step, int64_t begin, int64_t end,
                                             int64_t width, int64_t channels) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t x = begin; x < (end < width ? end : width); ++x) {
    for (int64_t channel = 0; channel < channels; channel += kLine) {
      __builtin_prefetch(output + x * output_step + channel, 1);
    }
  }
}

template <bool kRun, bool kAffine, bool kResidual, ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE void finish_tile(const Block<T>& block, const T* residual, int64_t residual_step,
                                       T* output, int64_t output_step, int64_t input_step, int64_t begin,
                                       int64_t end) {
  using A = accumulator_t<T>;
  const T* const base[kGroup] = {block.base[0], block.base[1], block.base[2], block.base[3],
                                 block.base[4], block.base[5], block.base[6], block.base[7]};
  for (int64_t x = begin; x < end; ++x) {
    Group<A> value = kRun ? load<kGroup>(base[0] + x * input_step) : gather<A, kGroup>(base, x * input_step);
    if constexpr (kAffine) {
      value = value * block.gain + block.bias;
    }
    if constexpr (kResidual) {
      value = load<kGroup>(residual + x * residual_step) + value;
    }
    store<kGroup>(output + x * output_step, activate<kActivation>(value, block.slope));
  }
}

template <bool kAffine, bool kResidual, ActivationKind kActivation, typename T>
void finish_row(const ShiftConcatParams<T>& params, const RowPointers<T>& row, int64_t y) {
  const int64_t width = params.extent.width;
  const int64_t channels = params.output_channels;
  const int64_t radius = params.radius < width ? params.radius : width;
  const int64_t in = params.intrinsic_strides.x;
  const int64_t res = params.residual_strides.x;
  const int64_t out = params.output_strides.x;
  const int64_t first = radius;
  const int64_t last = width - radius > first ? width - radius : first;
  Block<T> blocks[kRowBlocks];
  for (int64_t chunk = 0; chunk < channels; chunk += kRowBlocks * kGroup) {
    const int64_t chunk_end = chunk + kRowBlocks * kGroup < channels ? chunk + kRowBlocks * kGroup : channels;
    const int64_t chunk_blocks = (chunk_end - chunk) / kGroup;
    for (int64_t index = 0; index < chunk_blocks; ++index) {
      blocks[index] = make_block<kActivation>(params, row, y, chunk + index * kGroup);
    }
    for (int64_t begin = first; begin < last; begin += kTilePixels) {
      const int64_t end = begin + kTilePixels < last ? begin + kTilePixels : last;
      fetch_for_writing(row.output + chunk, out, begin + kPixelsAhead, end + kPixelsAhead, width,
                        chunk_end - chunk);
      for (int64_t index = 0; index < chunk_blocks; ++index) {
        const Block<T>& block = blocks[index];
        const int64_t channel = chunk + index * kGroup;
        const T* residual = kResidual ? row.residual + channel : nullptr;
        T* output = row.output + channel;
        if (block.run) {
          finish_tile<true, kAffine, kResidual, kActivation>(block, residual, res, output, out, in, begin,
                                                             end);
        } else {
          finish_tile<false, kAffine, kResidual, kActivation>(block, residual, res, output, out, in, begin,
                                                              end);
        }
      }
      for (int64_t channel = chunk + chunk_blocks * kGroup; channel < chunk_end; ++channel) {
        for (int64_t x = begin; x < end; ++x) {
          finish_element<kActivation>(params, row, y, x, channel);
        }
      }
    }
  }
  for (int64_t channel = 0; channel < channels; ++channel) {
    const int64_t source_y = y + params.origins[channel].dy;
    const bool outside = source_y < 0 || source_y >= params.extent.height;
    for (int64_t x = 0; x < (outside ? width : first); ++x) {
      finish_element<kActivation>(params, row, y, x, channel);
    }
    for (int64_t x = outside ? width : last; x < width; ++x) {
      finish_element<kActivation>(params, row, y, x, channel);
    }
  }
}

}  // namespace

template <typename T>
void shift_concat_pixels(const ShiftConcatParams<T>& params, int64_t begin, int64_t end) {
  const bool affine = params.affine || params.residual_scale != 1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t y = task % params.extent.height;
    const int64_t n = task / params.extent.height;
    const RowPointers<T> row{
        params.intrinsic + n * params.intrinsic_strides.batch,
        params.residual == nullptr
            ? nullptr
            : params.residual + n * params.residual_strides.batch + y * params.residual_strides.y,
        params.output + n * params.output_strides.batch + y * params.output_strides.y,
    };
    choose(
        [&](auto has_affine, auto has_residual, auto kind) {
          finish_row<decltype(has_affine)::value, decltype(has_residual)::value, decltype(kind)::value>(
              params, row, y);
        },
        affine, row.residual != nullptr, params.activation.kind);
  }
}

template void shift_concat_pixels(const ShiftConcatParams<float>&, int64_t, int64_t);
template void shift_concat_pixels(const ShiftConcatParams<double>&, int64_t, int64_t);
template void shift_concat_pixels(const ShiftConcatParams<Float16>&, int64_t, int64_t);
template void shift_concat_pixels(const ShiftConcatParams<BFloat16>&, int64_t, int64_t);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
