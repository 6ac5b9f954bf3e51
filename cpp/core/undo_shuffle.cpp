#include "core/undo_shuffle.h"

#include "core/half.h"

namespace ghostsr {
namespace {

template <ActivationKind kActivation, typename T>
T undone(const UndoShuffleParams<T>& params, int64_t gradient, int64_t output) {
  using A = accumulator_t<T>;
  const A value = A(params.grad_output[gradient]);
  if constexpr (kActivation == ActivationKind::none) {
    return T(value);
  } else {
    return T(activation_gradient<kActivation>(A(params.output[output]), value, static_cast<A>(params.slope)));
  }
}

// Four channels of the four pixels of a block are four runs of four: a square, turned.
template <ActivationKind kActivation>
int64_t undo_squares(const UndoShuffleParams<float>& params, int64_t gradient, int64_t output, float* to) {
  typedef float Four __attribute__((vector_size(16)));
  typedef float FourAnywhere __attribute__((vector_size(16), aligned(4), may_alias));
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  const Four slope = Four{} + static_cast<float>(params.slope);
  int64_t c = 0;
  for (; c + 4 <= params.channels; c += 4) {
    Four rows[4];
    for (int place = 0; place < 4; ++place) {
      const int64_t i = place / 2;
      const int64_t j = place % 2;
      rows[place] =
          *reinterpret_cast<const FourAnywhere*>(params.grad_output + gradient + i * grad.y + j * grad.x + c);
      if constexpr (kActivation != ActivationKind::none) {
        const Four seen =
            *reinterpret_cast<const FourAnywhere*>(params.output + output + i * out.y + j * out.x + c);
        rows[place] = activation_gradient<kActivation>(seen, rows[place], slope);
      }
    }
    const Four low01 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    const Four high01 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    const Four low23 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    const Four high23 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    auto* square = reinterpret_cast<FourAnywhere*>(to + 4 * c);
    square[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    square[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    square[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    square[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
  }
  return c;
}

template <ActivationKind kActivation, typename T>
void undo_rows(const UndoShuffleParams<T>& params, int64_t begin, int64_t end) {
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  const Strides& to = params.result_strides;
  const int64_t factor = params.factor;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / params.extent.height;
    const int64_t y = row % params.extent.height;
    for (int64_t x = 0; x < params.extent.width; ++x) {
      const int64_t gradient = n * grad.batch + factor * (y * grad.y + x * grad.x);
      const int64_t output = n * out.batch + factor * (y * out.y + x * out.x);
      T* result = params.result + n * to.batch + y * to.y + x * to.x;
      int64_t c = 0;
      if constexpr (sizeof(T) == sizeof(float)) {
        const bool channels_innermost =
            grad.channel == 1 && (kActivation == ActivationKind::none || out.channel == 1);
        if (factor == 2 && channels_innermost) {
          c = undo_squares<kActivation>(params, gradient, output, result);
        }
      }
      result += c * factor * factor;
      for (; c < params.channels; ++c) {
        for (int64_t i = 0; i < factor; ++i) {
          for (int64_t j = 0; j < factor; ++j) {
            *result++ = undone<kActivation>(params, gradient + i * grad.y + j * grad.x + c * grad.channel,
                                            output + i * out.y + j * out.x + c * out.channel);
          }
        }
      }
    }
  }
}

}  // namespace

template <typename T>
void undo_shuffle(const UndoShuffleParams<T>& params, int64_t begin, int64_t end) {
  switch (params.activation) {
    case ActivationKind::none:
      return undo_rows<ActivationKind::none>(params, begin, end);
    case ActivationKind::relu:
      return undo_rows<ActivationKind::relu>(params, begin, end);
    case ActivationKind::leaky:
      return undo_rows<ActivationKind::leaky>(params, begin, end);
  }
}

template void undo_shuffle(const UndoShuffleParams<float>&, int64_t, int64_t);
template void undo_shuffle(const UndoShuffleParams<double>&, int64_t, int64_t);
template void undo_shuffle(const UndoShuffleParams<Float16>&, int64_t, int64_t);
template void undo_shuffle(const UndoShuffleParams<BFloat16>&, int64_t, int64_t);

}  // namespace ghostsr
