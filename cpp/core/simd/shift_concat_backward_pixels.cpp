#include "core/shift_concat.h"
#include "core/simd/dispatch.h"
#include "core/simd/planes.h"
#include "core/simd/slopes.h"

// All channels of a pixel together: the path of channels_last maps. Gradients are turned into planes, where
// each reader of an intrinsic channel is a run of pixels, and their sums back into pixels.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

template <MaskSource kSource, ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE void fill_gradient(const ShiftConcatBackwardParams<T>& params,
                                         const PlaneLineBuffer<accumulator_t<T>>& lines, const Piece& piece,
                                         int64_t y) {
  using A = accumulator_t<T>;
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  const int64_t row = y < 0 || y >= params.extent.height ? 0 : y;
  const T* gradient = params.grad_output + piece.n * grad.batch + row * grad.y;
  const T* output =
      kSource == MaskSource::output ? params.output + piece.n * out.batch + row * out.y : nullptr;
  fill_line(
      lines, params.extent, piece, y,
      [&](int64_t x, int64_t c) __attribute__((always_inline)) {
        const Group<A> value = load<kGroup>(gradient + x * grad.x + c);
        if constexpr (kSource == MaskSource::output) {
          return activation_gradient<kActivation>(load<kGroup>(output + x * out.x + c), value,
                                                  slopes_of<kActivation, A>(params.activation, c));
        }
        return value;
      },
      [&](int64_t x, int64_t c) __attribute__((always_inline)) {
        const A value = A(gradient[x * grad.x + c]);
        if constexpr (kSource == MaskSource::output) {
          return activation_gradient<kActivation>(A(output[x * out.x + c]), value,
                                                  slope_of<kActivation, A>(params.activation, c));
        }
        return value;
      });
}

// Sums the readers of an intrinsic channel. A reader's gradient that belongs to pixel x saw the intrinsic
// value of pixel x, whatever its shift. `rows` are the planes of the rows y - radius to y + radius.
template <MaskSource kSource, ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE void sum_readers(const ShiftConcatBackwardParams<T>& params,
                                       const accumulator_t<T>* const* rows, int64_t radius, int64_t pitch,
                                       int64_t whole, int64_t channel, const accumulator_t<T>* seen,
                                       accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  const int64_t begin = params.reader_begin[channel];
  const int64_t end = params.reader_begin[channel + 1];
  for (int64_t index = begin; index < end; ++index) {
    const int64_t reader = params.readers[index];
    const ChannelOrigin& origin = params.origins[reader];
    const A* gradient = rows[radius - origin.dy] + reader * pitch + radius - origin.dx;
    const A gain = static_cast<A>(origin.gain * params.residual_scale);
    const A bias = static_cast<A>(origin.bias * params.residual_scale);
    const Plane<A> slope = Plane<A>{} + slope_of<kActivation, A>(params.activation, reader);
    for (int64_t x = 0; x < whole; x += kPlaneLanes) {
      Plane<A> value = load<kPlaneLanes>(gradient + x) * gain;
      if constexpr (kSource == MaskSource::intrinsic) {
        value = activation_gradient<kActivation>(load<kPlaneLanes>(seen + x) * gain + bias, value, slope);
      }
      store<kPlaneLanes>(sums + x, index == begin ? value : load<kPlaneLanes>(sums + x) + value);
    }
  }
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void backward_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
                   accumulator_t<T>* workspace) {
  using A = accumulator_t<T>;
  const int64_t channels = params.intrinsic_channels;
  const int64_t outputs = params.reader_begin[channels];
  const int64_t radius = params.radius;
  const Strides& in = params.intrinsic_strides;
  const Strides& to = params.grad_intrinsic_strides;
  A* const sums = workspace;
  A* const seen = sums + channels * kPlanePixels;
  const PlaneLineBuffer<A> lines{seen + channels * kPlanePixels, outputs, kPlanePixels + 2 * radius, radius};
  const A* rows[2 * kMaxShift + 1];
  for (int64_t first = 0; first < params.extent.width; first += kPlanePixels) {
    for (int64_t index = begin; index < end; ++index) {
      const Piece piece = make_piece(params.extent, index, first);
      const bool fresh = index == begin || piece.y == 0;
      for (int64_t dy = fresh ? -radius : radius; dy <= radius; ++dy) {
        fill_gradient<kSource, kActivation>(params, lines, piece, piece.y + dy);
      }
      if constexpr (kSource == MaskSource::intrinsic) {
        const T* intrinsic = params.intrinsic + piece.n * in.batch + piece.y * in.y + first * in.x;
        to_planes(
            channels, piece.pixels, kPlanePixels, seen,
            [&](int64_t x, int64_t c)
                __attribute__((always_inline)) { return load<kGroup>(intrinsic + x * in.x + c); },
            [&](int64_t x, int64_t c) __attribute__((always_inline)) { return A(intrinsic[x * in.x + c]); });
        clear_planes(seen, channels, kPlanePixels, piece.pixels, piece.whole);
      }
      for (int64_t dy = -radius; dy <= radius; ++dy) {
        rows[radius + dy] = lines.row(piece.y + dy);
      }
      for (int64_t channel = 0; channel < channels; ++channel) {
        sum_readers<kSource, kActivation>(params, rows, radius, lines.pitch, piece.whole, channel,
                                          seen + channel * kPlanePixels, sums + channel * kPlanePixels);
      }
      from_planes(sums, channels, piece.pixels, kPlanePixels,
                  params.grad_intrinsic + piece.n * to.batch + piece.y * to.y + first * to.x, to.x);
    }
  }
}

// Whether every output channel is the intrinsic one of its number, as in a dense layer.
template <typename T>
bool is_dense(const ShiftConcatBackwardParams<T>& params) {
  bool dense = params.reader_begin[params.intrinsic_channels] == params.intrinsic_channels;
  for (int64_t channel = 0; dense && channel < params.intrinsic_channels; ++channel) {
    dense = params.origins[channel].source == channel;
  }
  return dense;
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void backward_dense_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  using A = accumulator_t<T>;
  const A scale = static_cast<A>(params.residual_scale);
  // What the activation saw has the output's sign, or is the intrinsic value times residual_scale.
  const A sign_scale = kSource == MaskSource::output ? A(1) : scale;
  const Strides& grad = params.grad_output_strides;
  const Strides& to = params.grad_intrinsic_strides;
  const T* signs = kSource == MaskSource::output ? params.output : params.intrinsic;
  const Strides& seen = kSource == MaskSource::output ? params.output_strides : params.intrinsic_strides;
  const int64_t whole = params.intrinsic_channels - params.intrinsic_channels % kGroup;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t n = index / params.extent.height;
    const int64_t y = index % params.extent.height;
    for (int64_t x = 0; x < params.extent.width; ++x) {
      const T* gradient = params.grad_output + n * grad.batch + y * grad.y + x * grad.x;
      const T* sign =
          kSource == MaskSource::none ? nullptr : signs + n * seen.batch + y * seen.y + x * seen.x;
      T* result = params.grad_intrinsic + n * to.batch + y * to.y + x * to.x;
      for (int64_t channel = 0; channel < whole; channel += kGroup) {
        Group<A> value = load<kGroup>(gradient + channel) * scale;
        if constexpr (kSource != MaskSource::none) {
          value = activation_gradient<kActivation>(load<kGroup>(sign + channel) * sign_scale, value,
                                                   slopes_of<kActivation, A>(params.activation, channel));
        }
        store<kGroup>(result + channel, value);
      }
      for (int64_t channel = whole; channel < params.intrinsic_channels; ++channel) {
        A value = A(gradient[channel]) * scale;
        if constexpr (kSource != MaskSource::none) {
          value = activation_gradient<kActivation>(A(sign[channel]) * sign_scale, value,
                                                   slope_of<kActivation, A>(params.activation, channel));
        }
        result[channel] = T(value);
      }
    }
  }
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void backward(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
              accumulator_t<T>* workspace) {
  if (is_dense(params)) {
    backward_dense_rows<kSource, kActivation>(params, begin, end);
  } else {
    backward_rows<kSource, kActivation>(params, begin, end, workspace);
  }
}

}  // namespace

template <typename T>
void shift_concat_backward_pixels(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
                                  accumulator_t<T>* workspace) {
  choose_mask(
      [&](auto source, auto kind) {
        backward<decltype(source)::value, decltype(kind)::value>(params, begin, end, workspace);
      },
      params.mask_source, params.activation.kind);
}

template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<float>&, int64_t, int64_t, float*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<double>&, int64_t, int64_t,
                                           double*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<Float16>&, int64_t, int64_t,
                                           float*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<BFloat16>&, int64_t, int64_t,
                                           float*);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
