#include "core/shift_selection.h"
#include "core/simd/dispatch.h"
#include "core/simd/planes.h"
#include "core/simd/slopes.h"

// All ghosts of a row together: the path of channels_last maps. Rows are turned into planes, and neighbouring
// pixels of a plane are summed in lanes.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

template <typename T>
struct Planes {
  using A = accumulator_t<T>;
  A* gradient;  // [channels][kPlanePixels], with residual_scale
  A* passed;    // [kPlanePixels], of one ghost as the activation let it through
  PlaneLineBuffer<A> intrinsic;
};

template <MaskSource kSource, ActivationKind kActivation, typename T>
void fill_gradient(const GhostSumParams<T>& params, const Planes<T>& planes, const Piece& piece) {
  using A = accumulator_t<T>;
  const A scale = static_cast<A>(params.residual_scale);
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  const int64_t channels = params.intrinsic_channels + params.ghosts;
  const T* gradient = params.grad_output + piece.n * grad.batch + piece.y * grad.y + piece.first * grad.x;
  const T* output = kSource == MaskSource::output
                        ? params.output + piece.n * out.batch + piece.y * out.y + piece.first * out.x
                        : nullptr;
  to_planes(
      channels, piece.pixels, kPlanePixels, planes.gradient,
      [&](int64_t x, int64_t c) __attribute__((always_inline)) {
        const Group<A> value = load<kGroup>(gradient + x * grad.x + c) * scale;
        if constexpr (kSource == MaskSource::output) {
          return activation_gradient<kActivation>(load<kGroup>(output + x * out.x + c), value,
                                                  slopes_of<kActivation, A>(params.activation, c));
        }
        return value;
      },
      [&](int64_t x, int64_t c) __attribute__((always_inline)) {
        const A value = A(gradient[x * grad.x + c]) * scale;
        if constexpr (kSource == MaskSource::output) {
          return activation_gradient<kActivation>(A(output[x * out.x + c]), value,
                                                  slope_of<kActivation, A>(params.activation, c));
        }
        return value;
      });
  clear_planes(planes.gradient, channels, kPlanePixels, piece.pixels, piece.whole);
}

template <typename T>
void fill_intrinsic(const GhostSumParams<T>& params, const Planes<T>& planes, const Piece& piece, int64_t y) {
  using A = accumulator_t<T>;
  const Strides& in = params.intrinsic_strides;
  const int64_t row = y < 0 || y >= params.extent.height ? 0 : y;
  const T* from = params.intrinsic + piece.n * in.batch + row * in.y;
  fill_line(
      planes.intrinsic, params.extent, piece, y,
      [&](int64_t x, int64_t c) __attribute__((always_inline)) { return load<kGroup>(from + x * in.x + c); },
      [&](int64_t x, int64_t c) __attribute__((always_inline)) { return A(from[x * in.x + c]); });
}

// The gradient of a ghost as the activation let it through.
template <MaskSource kSource, ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE const accumulator_t<T>* passed_gradient(const GhostSumParams<T>& params,
                                                              const Planes<T>& planes, const Piece& piece,
                                                              int64_t channel, const ChannelOrigin& origin) {
  using A = accumulator_t<T>;
  const A* gradient = planes.gradient + channel * kPlanePixels;
  if constexpr (kSource != MaskSource::intrinsic) {
    return gradient;
  }
  const A gain = static_cast<A>(origin.gain * params.residual_scale);
  const A bias = static_cast<A>(origin.bias * params.residual_scale);
  const A* seen = planes.intrinsic.channel(piece.y + origin.dy, origin.source) + origin.dx;
  const Plane<A> slope = Plane<A>{} + slope_of<kActivation, A>(params.activation, channel);
  for (int64_t x = 0; x < piece.whole; x += kPlaneLanes) {
    store<kPlaneLanes>(planes.passed + x,
                       activation_gradient<kActivation>(load<kPlaneLanes>(seen + x) * gain + bias,
                                                        load<kPlaneLanes>(gradient + x), slope));
  }
  return planes.passed;
}

template <typename A>
GHOSTSR_ALWAYS_INLINE void add_lanes(const Plane<A>& values, double* sums) {
  for (int lane = 0; lane < kPlaneLanes; ++lane) {
    sums[lane % kGroup] += static_cast<double>(values[lane]);
  }
}

template <typename A>
GHOSTSR_ALWAYS_INLINE void add_products(const A* left, const A* right, int64_t count, double* sums) {
  Plane<A> products = {};
  for (int64_t x = 0; x < count; x += kPlaneLanes) {
    products += load<kPlaneLanes>(left + x) * load<kPlaneLanes>(right + x);
  }
  add_lanes<A>(products, sums);
}

template <typename A>
GHOSTSR_ALWAYS_INLINE void add_values(const A* values, int64_t count, double* sums) {
  Plane<A> total = {};
  for (int64_t x = 0; x < count; x += kPlaneLanes) {
    total += load<kPlaneLanes>(values + x);
  }
  add_lanes<A>(total, sums);
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void add_ghost(const GhostSumParams<T>& params, const Planes<T>& planes, const Piece& piece, int64_t ghost,
               double* sums) {
  using A = accumulator_t<T>;
  const int64_t channel = params.ghost_outputs[ghost];
  const ChannelOrigin& origin = params.origins[channel];
  const A* gradient = passed_gradient<kSource, kActivation>(params, planes, piece, channel, origin);
  switch (params.kind) {
    case GhostSum::total:
      add_values(gradient, piece.whole, sums);
      break;
    case GhostSum::chosen:
    case GhostSum::affine: {
      const A* source = planes.intrinsic.channel(piece.y + origin.dy, origin.source);
      add_products(gradient, source + origin.dx, piece.whole, sums);
      if (params.kind == GhostSum::affine) {
        add_values(gradient, piece.whole, sums + kGroup);
      }
      break;
    }
    case GhostSum::candidates:
      for (int64_t dy = -params.max_shift; dy <= params.max_shift; ++dy) {
        const A* source = planes.intrinsic.channel(piece.y + dy, origin.source);
        for (int64_t dx = -params.max_shift; dx <= params.max_shift; ++dx) {
          add_products(gradient, source + dx, piece.whole, sums);
          sums += kGroup;
        }
      }
      break;
  }
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void sum_pixels(const GhostSumParams<T>& params, int64_t radius, int64_t width, int64_t begin, int64_t end,
                accumulator_t<T>* workspace, double* sums) {
  const int64_t channels = params.intrinsic_channels + params.ghosts;
  const bool reads_intrinsic = params.kind != GhostSum::total || kSource == MaskSource::intrinsic;
  Planes<T> planes;
  planes.gradient = workspace;
  planes.passed = planes.gradient + channels * kPlanePixels;
  planes.intrinsic = {planes.passed + kPlanePixels, params.intrinsic_channels, kPlanePixels + 2 * radius,
                      radius};
  for (int64_t first = 0; first < params.extent.width; first += kPlanePixels) {
    for (int64_t index = begin; index < end; ++index) {
      const Piece piece = make_piece(params.extent, index, first);
      fill_gradient<kSource, kActivation>(params, planes, piece);
      const bool fresh = index == begin || piece.y == 0;
      for (int64_t dy = fresh ? -radius : radius; reads_intrinsic && dy <= radius; ++dy) {
        fill_intrinsic(params, planes, piece, piece.y + dy);
      }
      for (int64_t ghost = 0; ghost < params.ghosts; ++ghost) {
        add_ghost<kSource, kActivation>(params, planes, piece, ghost, sums + ghost * width * kGroup);
      }
    }
  }
}

}  // namespace

template <typename T>
void ghost_sum_pixels(const GhostSumParams<T>& params, int64_t radius, int64_t width, int64_t begin,
                      int64_t end, accumulator_t<T>* workspace, double* sums) {
  choose_mask(
      [&](auto source, auto kind) {
        sum_pixels<decltype(source)::value, decltype(kind)::value>(params, radius, width, begin, end,
                                                                   workspace, sums);
      },
      params.mask_source, params.activation.kind);
}

template void ghost_sum_pixels(const GhostSumParams<float>&, int64_t, int64_t, int64_t, int64_t, float*,
                               double*);
template void ghost_sum_pixels(const GhostSumParams<double>&, int64_t, int64_t, int64_t, int64_t, double*,
                               double*);
template void ghost_sum_pixels(const GhostSumParams<Float16>&, int64_t, int64_t, int64_t, int64_t, float*,
                               double*);
template void ghost_sum_pixels(const GhostSumParams<BFloat16>&, int64_t, int64_t, int64_t, int64_t, float*,
                               double*);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
