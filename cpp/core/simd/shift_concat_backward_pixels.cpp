#include "core/simd/kernels.h"
#include "core/simd/lanes.h"
#include "core/simd/planes.h"

// All channels of a pixel together: the path of channels_last maps. Gradients are turned into planes, where
// each reader of an intrinsic channel is a run of pixels, and their sums back into pixels.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

template <ReluWitness kWitness, typename T>
[[gnu::always_inline]] inline void fill_gradient(const ShiftConcatBackwardParams<T>& params,
                                                 const PlaneRing<accumulator_t<T>>& ring, const Piece& piece,
                                                 int64_t y) {
  using A = accumulator_t<T>;
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  const int64_t row = y < 0 || y >= params.extent.height ? 0 : y;
  const T* gradient = params.grad_output + piece.n * grad.batch + row * grad.y;
  const T* output =
      kWitness == ReluWitness::output ? params.output + piece.n * out.batch + row * out.y : nullptr;
  fill_ring(
      ring, params.extent, piece, y,
      [&](int64_t x, int64_t c) __attribute__((always_inline)) {
        const lanes_t<A> value = load(gradient + x * grad.x + c);
        return kWitness == ReluWitness::output ? keep_where_positive(load(output + x * out.x + c), value)
                                               : value;
      },
      [&](int64_t x, int64_t c) __attribute__((always_inline)) {
        const bool passed = kWitness != ReluWitness::output || A(output[x * out.x + c]) > A(0);
        return passed ? A(gradient[x * grad.x + c]) : A(0);
      });
}

// Sums the readers of an intrinsic channel. A reader's gradient that belongs to pixel x saw the intrinsic
// value of pixel x, whatever its shift. `rows` are the planes of the rows y - reach to y + reach.
template <ReluWitness kWitness, typename T>
[[gnu::always_inline]] inline void sum_readers(const ShiftConcatBackwardParams<T>& params,
                                               const accumulator_t<T>* const* rows, int64_t reach,
                                               int64_t pitch, int64_t whole, int64_t channel,
                                               const accumulator_t<T>* seen, accumulator_t<T>* sums) {
  using A = accumulator_t<T>;
  const int64_t begin = params.reader_begin[channel];
  const int64_t end = params.reader_begin[channel + 1];
  for (int64_t index = begin; index < end; ++index) {
    const int64_t reader = params.readers[index];
    const ChannelOrigin& origin = params.origins[reader];
    const A* gradient = rows[reach - origin.dy] + reader * pitch + reach - origin.dx;
    const A gain = static_cast<A>(origin.gain * params.residual_scale);
    const A bias = static_cast<A>(origin.bias * params.residual_scale);
    for (int64_t x = 0; x < whole; x += kLanes) {
      lanes_t<A> value = load(gradient + x) * gain;
      if constexpr (kWitness == ReluWitness::intrinsic) {
        value = keep_where_positive(load(seen + x) * gain + bias, value);
      }
      store(sums + x, index == begin ? value : load(sums + x) + value);
    }
  }
}

template <ReluWitness kWitness, typename T>
void backward_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
                   accumulator_t<T>* workspace) {
  using A = accumulator_t<T>;
  const int64_t channels = params.intrinsic_channels;
  const int64_t outputs = params.reader_begin[channels];
  const int64_t reach = params.reach;
  const Strides& in = params.intrinsic_strides;
  const Strides& to = params.grad_intrinsic_strides;
  A* const sums = workspace;
  A* const seen = sums + channels * kPlanePixels;
  const PlaneRing<A> ring{seen + channels * kPlanePixels, outputs, kPlanePixels + 2 * reach, reach};
  const A* rows[2 * kMaxShift + 1];
  for (int64_t first = 0; first < params.extent.width; first += kPlanePixels) {
    for (int64_t index = begin; index < end; ++index) {
      const Piece piece = make_piece(params.extent, index, first);
      const bool fresh = index == begin || piece.y == 0;
      for (int64_t dy = fresh ? -reach : reach; dy <= reach; ++dy) {
        fill_gradient<kWitness>(params, ring, piece, piece.y + dy);
      }
      if constexpr (kWitness == ReluWitness::intrinsic) {
        const T* intrinsic = params.intrinsic + piece.n * in.batch + piece.y * in.y + first * in.x;
        to_planes(
            channels, piece.pixels, kPlanePixels, seen,
            [&](int64_t x, int64_t c)
                __attribute__((always_inline)) { return load(intrinsic + x * in.x + c); },
            [&](int64_t x, int64_t c) __attribute__((always_inline)) { return A(intrinsic[x * in.x + c]); });
        clear_planes(seen, channels, kPlanePixels, piece.pixels, piece.whole);
      }
      for (int64_t dy = -reach; dy <= reach; ++dy) {
        rows[reach + dy] = ring.row(piece.y + dy);
      }
      for (int64_t channel = 0; channel < channels; ++channel) {
        sum_readers<kWitness>(params, rows, reach, ring.pitch, piece.whole, channel,
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

template <ReluWitness kWitness, typename T>
void backward_dense_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  using A = accumulator_t<T>;
  const A scale = static_cast<A>(params.residual_scale);
  // What the ReLU saw is the output itself, or the intrinsic value times residual_scale.
  const A sign_scale = kWitness == ReluWitness::output ? A(1) : scale;
  const Strides& grad = params.grad_output_strides;
  const Strides& to = params.grad_intrinsic_strides;
  const T* signs = kWitness == ReluWitness::output ? params.output : params.intrinsic;
  const Strides& seen = kWitness == ReluWitness::output ? params.output_strides : params.intrinsic_strides;
  const int64_t whole = params.intrinsic_channels - params.intrinsic_channels % kLanes;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t n = index / params.extent.height;
    const int64_t y = index % params.extent.height;
    for (int64_t x = 0; x < params.extent.width; ++x) {
      const T* gradient = params.grad_output + n * grad.batch + y * grad.y + x * grad.x;
      const T* sign =
          kWitness == ReluWitness::none ? nullptr : signs + n * seen.batch + y * seen.y + x * seen.x;
      T* result = params.grad_intrinsic + n * to.batch + y * to.y + x * to.x;
      for (int64_t channel = 0; channel < whole; channel += kLanes) {
        const lanes_t<A> value = load(gradient + channel) * scale;
        store(result + channel, kWitness == ReluWitness::none
                                    ? value
                                    : keep_where_positive(load(sign + channel) * sign_scale, value));
      }
      for (int64_t channel = whole; channel < params.intrinsic_channels; ++channel) {
        const bool passed = kWitness == ReluWitness::none || A(sign[channel]) * sign_scale > A(0);
        result[channel] = T(passed ? A(gradient[channel]) * scale : A(0));
      }
    }
  }
}

template <ReluWitness kWitness, typename T>
void backward(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
              accumulator_t<T>* workspace) {
  if (is_dense(params)) {
    backward_dense_rows<kWitness>(params, begin, end);
  } else {
    backward_rows<kWitness>(params, begin, end, workspace);
  }
}

}  // namespace

template <typename T>
void shift_concat_backward_pixels(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
                                  accumulator_t<T>* workspace) {
  switch (params.witness) {
    case ReluWitness::none:
      backward<ReluWitness::none>(params, begin, end, workspace);
      break;
    case ReluWitness::output:
      backward<ReluWitness::output>(params, begin, end, workspace);
      break;
    case ReluWitness::intrinsic:
      backward<ReluWitness::intrinsic>(params, begin, end, workspace);
      break;
  }
}

template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<float>&, int64_t, int64_t, float*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<double>&, int64_t, int64_t,
                                           double*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<Float16>&, int64_t, int64_t,
                                           float*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<BFloat16>&, int64_t, int64_t,
                                           float*);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
