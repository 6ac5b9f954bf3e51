#include "core/shift_concat.h"
#include "core/simd/dispatch.h"
#include "core/simd/slopes.h"

// One row of one channel at a time: the fast path of contiguous maps, and the general path of any strides.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

template <ActivationKind kActivation, typename T>
struct RowFinish {
  using A = accumulator_t<T>;
  A gain;
  A bias;
  A slope;

  [[gnu::always_inline]] T operator()(A value) const {
    return T(activate<kActivation>(value * gain + bias, slope));
  }
  [[gnu::always_inline]] T operator()(A value, A residual) const {
    return T(activate<kActivation>(residual + (value * gain + bias), slope));
  }
};

struct Range {
  int64_t begin;
  int64_t end;
};

// The x for which x + dx lies inside the map.
GHOSTSR_ALWAYS_INLINE Range inside(int64_t width, int64_t dx) {
  const int64_t begin = dx < 0 ? -dx : 0;
  const int64_t end = dx > 0 ? width - dx : width;
  return begin < width && begin < end ? Range{begin, end} : Range{width, width};
}

template <bool kUnit, ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE void finish_row(const RowFinish<kActivation, T>& finish, const T* input,
                                      int64_t input_step, const T* residual, int64_t residual_step, T* output,
                                      int64_t output_step, Range range) {
  using A = accumulator_t<T>;
  const int64_t in = kUnit ? 1 : input_step;
  const int64_t res = kUnit ? 1 : residual_step;
  const int64_t out = kUnit ? 1 : output_step;
  if (residual == nullptr) {
    for (int64_t x = range.begin; x < range.end; ++x) {
      output[x * out] = finish(A(input[x * in]));
    }
  } else {
    for (int64_t x = range.begin; x < range.end; ++x) {
      output[x * out] = finish(A(input[x * in]), A(residual[x * res]));
    }
  }
}

template <ActivationKind kActivation, typename T>
void finish_outside(const RowFinish<kActivation, T>& finish, const T* residual, int64_t residual_step,
                    T* output, int64_t output_step, Range range) {
  using A = accumulator_t<T>;
  for (int64_t x = range.begin; x < range.end; ++x) {
    output[x * output_step] =
        residual == nullptr ? finish(A(0)) : finish(A(0), A(residual[x * residual_step]));
  }
}

template <ActivationKind kActivation, typename T>
void finish_rows(const ShiftConcatParams<T>& params, int64_t begin, int64_t end) {
  using A = accumulator_t<T>;
  const auto [batch, height, width] = params.extent;
  const Strides& in = params.intrinsic_strides;
  const Strides& res = params.residual_strides;
  const Strides& out = params.output_strides;
  const bool unit = in.x == 1 && out.x == 1 && (params.residual == nullptr || res.x == 1);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t y = task % height;
    const int64_t channel = task / height % params.output_channels;
    const int64_t n = task / height / params.output_channels;
    const ChannelOrigin& origin = params.origins[channel];
    const RowFinish<kActivation, T> finish{static_cast<A>(origin.gain * params.residual_scale),
                                           static_cast<A>(origin.bias * params.residual_scale),
                                           slope_of<kActivation, A>(params.activation, channel)};
    const int64_t source_y = y + origin.dy;
    const Range range = source_y < 0 || source_y >= height ? Range{width, width} : inside(width, origin.dx);
    // Rows and columns outside are never read; only the address is formed from the clamped row.
    const int64_t safe_y = range.begin < range.end ? source_y : y;
    const T* input =
        params.intrinsic + n * in.batch + origin.source * in.channel + safe_y * in.y + origin.dx * in.x;
    const T* residual = params.residual == nullptr
                            ? nullptr
                            : params.residual + n * res.batch + channel * res.channel + y * res.y;
    T* output = params.output + n * out.batch + channel * out.channel + y * out.y;
    finish_outside(finish, residual, res.x, output, out.x, Range{0, range.begin});
    if (unit) {
      finish_row<true>(finish, input, 1, residual, 1, output, 1, range);
    } else {
      finish_row<false>(finish, input, in.x, residual, res.x, output, out.x, range);
    }
    finish_outside(finish, residual, res.x, output, out.x, Range{range.end, width});
  }
}

}  // namespace

template <typename T>
void shift_concat_rows(const ShiftConcatParams<T>& params, int64_t begin, int64_t end) {
  choose([&](auto kind) { finish_rows<decltype(kind)::value>(params, begin, end); }, params.activation.kind);
}

template void shift_concat_rows(const ShiftConcatParams<float>&, int64_t, int64_t);
template void shift_concat_rows(const ShiftConcatParams<double>&, int64_t, int64_t);
template void shift_concat_rows(const ShiftConcatParams<Float16>&, int64_t, int64_t);
template void shift_concat_rows(const ShiftConcatParams<BFloat16>&, int64_t, int64_t);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
