#include "core/simd/kernels.h"
#include "core/simd/lanes.h"

// All channels of a pixel together: the path of channels_last maps.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

// Pixels worked on before the next block of channels; the outputs of a tile stay in the first-level cache.
constexpr int64_t kTilePixels = 32;

template <typename T>
struct RowPointers {
  const T* intrinsic;  // pixel 0 of batch n, row 0
  const T* residual;   // pixel 0 of the row, or null
  T* output;           // pixel 0 of the row
};

template <typename T>
[[gnu::always_inline]] inline void finish_element(const ShiftConcatParams<T>& params,
                                                  const RowPointers<T>& row, int64_t y, int64_t x,
                                                  int64_t channel) {
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
  row.output[x * params.output_strides.x + channel] = T(params.relu && sum < A(0) ? A(0) : sum);
}

// Eight neighbouring output channels. `base` points at what pixel x = 0 reads.
template <typename T>
struct Block {
  const T* base[kLanes];
  lanes_t<accumulator_t<T>> gain;
  lanes_t<accumulator_t<T>> bias;
  bool run;  // the eight channels read eight neighbouring intrinsic ones
};

template <typename T>
[[gnu::always_inline]] inline Block<T> make_block(const ShiftConcatParams<T>& params,
                                                  const RowPointers<T>& row, int64_t y, int64_t channel) {
  using A = accumulator_t<T>;
  const Strides& in = params.intrinsic_strides;
  Block<T> block;
  block.run = true;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
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
[[gnu::always_inline]] inline lanes_t<accumulator_t<T>> load(const T* from) {
  using A = accumulator_t<T>;
  return lanes_t<A>{A(from[0]), A(from[1]), A(from[2]), A(from[3]),
                    A(from[4]), A(from[5]), A(from[6]), A(from[7])};
}

template <typename T>
[[gnu::always_inline]] inline lanes_t<accumulator_t<T>> gather(const T* const* base, int64_t offset) {
  using A = accumulator_t<T>;
  return lanes_t<A>{A(base[0][offset]), A(base[1][offset]), A(base[2][offset]), A(base[3][offset]),
                    A(base[4][offset]), A(base[5][offset]), A(base[6][offset]), A(base[7][offset])};
}

template <typename T>
[[gnu::always_inline]] inline void store(T* to, lanes_t<accumulator_t<T>> value) {
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    to[lane] = T(value[lane]);
  }
}
template <>
[[gnu::always_inline]] inline void store(float* to, lanes_t<float> value) {
  *reinterpret_cast<lanes_t<float>*>(to) = value;
}

template <bool kRun, bool kAffine, bool kResidual, bool kRelu, typename T>
[[gnu::always_inline]] inline void finish_tile(const Block<T>& block, const T* residual,
                                               int64_t residual_step, T* output, int64_t output_step,
                                               int64_t input_step, int64_t begin, int64_t end) {
  using A = accumulator_t<T>;
  const T* const base[kLanes] = {block.base[0], block.base[1], block.base[2], block.base[3],
                                 block.base[4], block.base[5], block.base[6], block.base[7]};
  for (int64_t x = begin; x < end; ++x) {
    lanes_t<A> value = kRun ? load(base[0] + x * input_step) : gather(base, x * input_step);
    if constexpr (kAffine) {
      value = value * block.gain + block.bias;
    }
    if constexpr (kResidual) {
      value = load(residual + x * residual_step) + value;
    }
    if constexpr (kRelu) {
      const lanes_t<A> zero = {};
      value = value < zero ? zero : value;
    }
    store(output + x * output_step, value);
  }
}

template <bool kAffine, bool kResidual, bool kRelu, typename T>
void finish_row(const ShiftConcatParams<T>& params, const RowPointers<T>& row, int64_t y) {
  const int64_t width = params.extent.width;
  const int64_t channels = params.output_channels;
  const int64_t reach = params.reach < width ? params.reach : width;
  const int64_t blocked = channels / kLanes * kLanes;
  const int64_t in = params.intrinsic_strides.x;
  const int64_t res = params.residual_strides.x;
  const int64_t out = params.output_strides.x;
  const int64_t first = reach;
  const int64_t last = width - reach > first ? width - reach : first;
  for (int64_t begin = first; begin < last; begin += kTilePixels) {
    const int64_t end = begin + kTilePixels < last ? begin + kTilePixels : last;
    for (int64_t channel = 0; channel < blocked; channel += kLanes) {
      const Block<T> block = make_block(params, row, y, channel);
      const T* residual = kResidual ? row.residual + channel : nullptr;
      if (block.run) {
        finish_tile<true, kAffine, kResidual, kRelu>(block, residual, res, row.output + channel, out, in,
                                                     begin, end);
      } else {
        finish_tile<false, kAffine, kResidual, kRelu>(block, residual, res, row.output + channel, out, in,
                                                      begin, end);
      }
    }
    for (int64_t channel = blocked; channel < channels; ++channel) {
      for (int64_t x = begin; x < end; ++x) {
        finish_element(params, row, y, x, channel);
      }
    }
  }
  for (int64_t channel = 0; channel < channels; ++channel) {
    const int64_t source_y = y + params.origins[channel].dy;
    const bool outside = source_y < 0 || source_y >= params.extent.height;
    for (int64_t x = 0; x < (outside ? width : first); ++x) {
      finish_element(params, row, y, x, channel);
    }
    for (int64_t x = outside ? width : last; x < width; ++x) {
      finish_element(params, row, y, x, channel);
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
    const int variant = (affine ? 4 : 0) + (row.residual != nullptr ? 2 : 0) + (params.relu ? 1 : 0);
    switch (variant) {
      case 0:
        finish_row<false, false, false>(params, row, y);
        break;
      case 1:
        finish_row<false, false, true>(params, row, y);
        break;
      case 2:
        finish_row<false, true, false>(params, row, y);
        break;
      case 3:
        finish_row<false, true, true>(params, row, y);
        break;
      case 4:
        finish_row<true, false, false>(params, row, y);
        break;
      case 5:
        finish_row<true, false, true>(params, row, y);
        break;
      case 6:
        finish_row<true, true, false>(params, row, y);
        break;
      default:
        finish_row<true, true, true>(params, row, y);
        break;
    }
  }
}

template void shift_concat_pixels(const ShiftConcatParams<float>&, int64_t, int64_t);
template void shift_concat_pixels(const ShiftConcatParams<double>&, int64_t, int64_t);
template void shift_concat_pixels(const ShiftConcatParams<Float16>&, int64_t, int64_t);
template void shift_concat_pixels(const ShiftConcatParams<BFloat16>&, int64_t, int64_t);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
