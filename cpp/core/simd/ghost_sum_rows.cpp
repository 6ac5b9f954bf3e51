#include "core/shift_selection.h"
#include "core/simd/dispatch.h"
#include "core/simd/slopes.h"

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

// Sums the products of two rows in eight fixed lanes, so that the result does not depend on the instruction
// level's vector length.
template <typename A>
GHOSTSR_ALWAYS_INLINE double dot(const A* left, const A* right, int64_t count) {
  Group<A> lanes = {};
  int64_t index = 0;
  for (; index + kGroup <= count; index += kGroup) {
    lanes += load<kGroup>(left + index) * load<kGroup>(right + index);
  }
  double sum = 0;
  for (int64_t lane = 0; lane < kGroup; ++lane) {
    sum += static_cast<double>(lanes[lane]);
  }
  for (; index < count; ++index) {
    sum += static_cast<double>(left[index] * right[index]);
  }
  return sum;
}

template <typename A>
double total(const A* values, int64_t count) {
  double sum = 0;
  for (int64_t index = 0; index < count; ++index) {
    sum += static_cast<double>(values[index]);
  }
  return sum;
}

// Copies elements that lie `step` apart.
template <typename T>
GHOSTSR_ALWAYS_INLINE void load_row(const T* from, int64_t step, int64_t count, accumulator_t<T>* row) {
  using A = accumulator_t<T>;
  if (step == 1) {
    for (int64_t x = 0; x < count; ++x) {
      row[x] = A(from[x]);
    }
  } else {
    for (int64_t x = 0; x < count; ++x) {
      row[x] = A(from[x * step]);
    }
  }
}

// Copies row y of an intrinsic channel with `margin` zeros on both sides; all zeros when y lies outside.
template <typename T>
void load_padded_row(const GhostSumParams<T>& params, int64_t n, int64_t source, int64_t y, int64_t margin,
                     accumulator_t<T>* row) {
  using A = accumulator_t<T>;
  const auto [batch, height, width] = params.extent;
  const Strides& in = params.intrinsic_strides;
  const bool inside = y >= 0 && y < height;
  for (int64_t x = 0; x < margin; ++x) {
    row[x] = A(0);
    row[margin + width + x] = A(0);
  }
  if (inside) {
    load_row(params.intrinsic + n * in.batch + source * in.channel + y * in.y, in.x, width, row + margin);
    return;
  }
  for (int64_t x = 0; x < width; ++x) {
    row[margin + x] = A(0);
  }
}

// Loads the gradient of one ghost row, as it was before the activation and with residual_scale.
template <MaskSource kSource, ActivationKind kActivation, typename T>
void load_gradient_row(const GhostSumParams<T>& params, int64_t n, int64_t y, int64_t channel,
                       const ChannelOrigin& origin, accumulator_t<T>* row) {
  using A = accumulator_t<T>;
  const int64_t width = params.extent.width;
  const A scale = static_cast<A>(params.residual_scale);
  const Strides& grad = params.grad_output_strides;
  const T* gradient = params.grad_output + n * grad.batch + channel * grad.channel + y * grad.y;
  load_row(gradient, grad.x, width, row);
  for (int64_t x = 0; x < width; ++x) {
    row[x] *= scale;
  }
  const A slope = slope_of<kActivation, A>(params.activation, channel);
  if constexpr (kSource == MaskSource::output) {
    const Strides& out = params.output_strides;
    const T* output = params.output + n * out.batch + channel * out.channel + y * out.y;
    int64_t x = 0;
    for (; out.x == 1 && x + kGroup <= width; x += kGroup) {
      store<kGroup>(row + x, activation_gradient<kActivation>(load<kGroup>(output + x), load<kGroup>(row + x),
                                                              Group<A>{} + slope));
    }
    for (; x < width; ++x) {
      row[x] = activation_gradient<kActivation>(A(output[x * out.x]), row[x], slope);
    }
  } else if constexpr (kSource == MaskSource::intrinsic) {
    const Strides& in = params.intrinsic_strides;
    const A gain = static_cast<A>(origin.gain * params.residual_scale);
    const A bias = static_cast<A>(origin.bias * params.residual_scale);
    const int64_t source_y = y + origin.dy;
    const bool row_inside = source_y >= 0 && source_y < params.extent.height;
    const T* from =
        params.intrinsic + n * in.batch + origin.source * in.channel + (row_inside ? source_y : 0) * in.y;
    for (int64_t x = 0; x < width; ++x) {
      const int64_t source_x = x + origin.dx;
      const bool inside = row_inside && source_x >= 0 && source_x < width;
      const A value = inside ? A(from[source_x * in.x]) : A(0);
      row[x] = activation_gradient<kActivation>(value * gain + bias, row[x], slope);
    }
  }
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void sum_rows(const GhostSumParams<T>& params, int64_t ghost, int64_t begin, int64_t end,
              accumulator_t<T>* workspace, double* sums) {
  using A = accumulator_t<T>;
  const auto [batch, height, width] = params.extent;
  const int64_t channel = params.ghost_outputs[ghost];
  const ChannelOrigin& origin = params.origins[channel];
  A* gradient = workspace;
  A* rows = workspace + width;
  const int64_t margin = params.kind == GhostSum::candidates
                             ? params.max_shift
                             : (origin.dx < 0 ? -int64_t{origin.dx} : int64_t{origin.dx});
  const int64_t pitch = width + 2 * margin;
  const int64_t window = 2 * int64_t{params.max_shift} + 1;
  // Row y + dy of the window lies in slot (y + dy) mod window; moving down one row replaces one slot.
  const auto slot = [&](int64_t y) { return rows + ((y % window + window) % window) * pitch; };
  for (int64_t index = begin; index < end; ++index) {
    const int64_t y = index % height;
    const int64_t n = index / height;
    load_gradient_row<kSource, kActivation>(params, n, y, channel, origin, gradient);
    switch (params.kind) {
      case GhostSum::total:
        sums[0] += total(gradient, width);
        break;
      case GhostSum::chosen:
      case GhostSum::affine:
        load_padded_row(params, n, origin.source, y + origin.dy, margin, rows);
        sums[0] += dot(gradient, rows + margin + origin.dx, width);
        if (params.kind == GhostSum::affine) {
          sums[1] += total(gradient, width);
        }
        break;
      case GhostSum::candidates: {
        const bool fresh = index == begin || y == 0;
        for (int64_t dy = fresh ? -margin : margin; dy <= margin; ++dy) {
          load_padded_row(params, n, origin.source, y + dy, margin, slot(y + dy));
        }
        for (int64_t dy = -margin; dy <= margin; ++dy) {
          const A* row = slot(y + dy);
          double* row_sums = sums + (dy + margin) * window;
          for (int64_t dx = 0; dx < window; ++dx) {
            row_sums[dx] += dot(gradient, row + dx, width);
          }
        }
        break;
      }
    }
  }
}

}  // namespace

template <typename T>
void ghost_sum_rows(const GhostSumParams<T>& params, int64_t ghost, int64_t begin, int64_t end,
                    accumulator_t<T>* workspace, double* sums) {
  choose_mask(
      [&](auto source, auto kind) {
        sum_rows<decltype(source)::value, decltype(kind)::value>(params, ghost, begin, end, workspace, sums);
      },
      params.mask_source, params.activation.kind);
}

template void ghost_sum_rows(const GhostSumParams<float>&, int64_t, int64_t, int64_t, float*, double*);
template void ghost_sum_rows(const GhostSumParams<double>&, int64_t, int64_t, int64_t, double*, double*);
template void ghost_sum_rows(const GhostSumParams<Float16>&, int64_t, int64_t, int64_t, float*, double*);
template void ghost_sum_rows(const GhostSumParams<BFloat16>&, int64_t, int64_t, int64_t, float*, double*);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
