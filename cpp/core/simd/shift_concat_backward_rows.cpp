#include "core/shift_concat.h"
#include "core/simd/dispatch.h"
#include "core/simd/slopes.h"

// One row of one channel at a time: the fast path of contiguous maps, and the general path of any strides.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

// Elements of a row that are summed up before they are written, so that the sums stay in the first-level
// cache.
constexpr int64_t kTilePixels = 64;

// What one reader of an intrinsic row adds to its gradient.
template <typename T>
struct Reader {
  using A = accumulator_t<T>;
  const T* gradient;
  const T* output;
  A gain;
  A bias;
  A slope;
  int64_t begin;
  int64_t end;
};

template <MaskSource kSource, ActivationKind kActivation, bool kUnit, typename T>
GHOSTSR_ALWAYS_INLINE void add_reader(const Reader<T>& reader, const T* intrinsic, int64_t gradient_step,
                                      int64_t output_step, int64_t intrinsic_step, int64_t tile_begin,
                                      accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  int64_t x = reader.begin;
  if constexpr (kUnit) {
    const Group<A> slope = Group<A>{} + reader.slope;
    for (; x + kGroup <= reader.end; x += kGroup) {
      Group<A> gradient = load<kGroup>(reader.gradient + x) * reader.gain;
      if constexpr (kSource == MaskSource::output) {
        gradient = activation_gradient<kActivation>(load<kGroup>(reader.output + x), gradient, slope);
      } else if constexpr (kSource == MaskSource::intrinsic) {
        gradient = activation_gradient<kActivation>(load<kGroup>(intrinsic + x) * reader.gain + reader.bias,
                                                    gradient, slope);
      }
      A* const sum = sums + (x - tile_begin);
      store<kGroup>(sum, load<kGroup>(sum) + gradient);
    }
  }
  for (; x < reader.end; ++x) {
    A gradient = A(reader.gradient[x * gradient_step]) * reader.gain;
    if constexpr (kSource == MaskSource::output) {
      gradient = activation_gradient<kActivation>(A(reader.output[x * output_step]), gradient, reader.slope);
    } else if constexpr (kSource == MaskSource::intrinsic) {
      gradient = activation_gradient<kActivation>(
          A(intrinsic[x * intrinsic_step]) * reader.gain + reader.bias, gradient, reader.slope);
    }
    sums[x - tile_begin] += gradient;
  }
}

template <MaskSource kSource, ActivationKind kActivation, bool kUnit, typename T>
void backward_row(const ShiftConcatBackwardParams<T>& params, int64_t n, int64_t channel, int64_t y) {
  using A = accumulator_t<T>;
  const auto [batch, height, width] = params.extent;
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  const Strides& in = params.intrinsic_strides;
  const Strides& to = params.grad_intrinsic_strides;
  const T* intrinsic = kSource == MaskSource::intrinsic
                           ? params.intrinsic + n * in.batch + channel * in.channel + y * in.y
                           : nullptr;
  T* result = params.grad_intrinsic + n * to.batch + channel * to.channel + y * to.y;
  for (int64_t tile = 0; tile < width; tile += kTilePixels) {
    const int64_t tile_end = tile + kTilePixels < width ? tile + kTilePixels : width;
    A sums[kTilePixels] = {};
    for (int64_t index = params.reader_begin[channel]; index < params.reader_begin[channel + 1]; ++index) {
      const int64_t reader_channel = params.readers[index];
      const ChannelOrigin& origin = params.origins[reader_channel];
      const int64_t reader_y = y - origin.dy;
      if (reader_y < 0 || reader_y >= height) {
        continue;
      }
      // Pixel x of the row is read by the reader's pixel x - dx.
      const int64_t begin = tile > origin.dx ? tile : origin.dx;
      const int64_t end = tile_end < width + origin.dx ? tile_end : width + origin.dx;
      const Reader<T> reader{
          params.grad_output + n * grad.batch + reader_channel * grad.channel + reader_y * grad.y -
              origin.dx * grad.x,
          kSource == MaskSource::output ? params.output + n * out.batch + reader_channel * out.channel +
                                              reader_y * out.y - origin.dx * out.x
                                        : nullptr,
          static_cast<A>(origin.gain * params.residual_scale),
          static_cast<A>(origin.bias * params.residual_scale),
          slope_of<kActivation, A>(params.activation, reader_channel),
          begin,
          end,
      };
      add_reader<kSource, kActivation, kUnit>(reader, intrinsic, grad.x, out.x, in.x, tile, sums);
    }
    for (int64_t x = tile; x < tile_end; ++x) {
      result[x * to.x] = T(sums[x - tile]);
    }
  }
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void backward_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  const int64_t height = params.extent.height;
  const int64_t channels = params.intrinsic_channels;
  const bool unit = params.grad_output_strides.x == 1 &&
                    (kSource != MaskSource::output || params.output_strides.x == 1) &&
                    (kSource != MaskSource::intrinsic || params.intrinsic_strides.x == 1);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t y = task % height;
    const int64_t channel = task / height % channels;
    const int64_t n = task / (height * channels);
    if (unit) {
      backward_row<kSource, kActivation, true>(params, n, channel, y);
    } else {
      backward_row<kSource, kActivation, false>(params, n, channel, y);
    }
  }
}

}  // namespace

template <typename T>
void shift_concat_backward_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  choose_mask(
      [&](auto source, auto kind) {
        backward_rows<decltype(source)::value, decltype(kind)::value>(params, begin, end);
      },
      params.mask_source, params.activation.kind);
}

template void shift_concat_backward_rows(const ShiftConcatBackwardParams<float>&, int64_t, int64_t);
template void shift_concat_backward_rows(const ShiftConcatBackwardParams<double>&, int64_t, int64_t);
template void shift_concat_backward_rows(const ShiftConcatBackwardParams<Float16>&, int64_t, int64_t);
template void shift_concat_backward_rows(const ShiftConcatBackwardParams<BFloat16>&, int64_t, int64_t);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
