// What a layer applies to its output, and how a gradient undoes it.
#pragma once

namespace ghostsr {

// `leaky` is torch's leaky_relu and prelu: v > 0 ? v : slope * v.
enum class ActivationKind { none, relu, leaky };

struct Activation {
  ActivationKind kind = ActivationKind::none;
  const double* slopes = nullptr;  // [output channels] of `leaky`, else null
};

// The map whose signs tell where the activation saw a positive value.
enum class MaskSource {
  none,       // nothing to undo
  output,     // a map like the output: itself where all slopes are positive, or what the activation saw
  intrinsic,  // the intrinsic map, from which the values are made again; only without a residual
};

// For a number or a vector of them. A NaN stays one, and so does the sign of a zero.
template <ActivationKind kind, typename Value>
[[gnu::always_inline]] inline Value activate(Value value, Value slope) {
  const Value zero{};
  if constexpr (kind == ActivationKind::relu) {
    return value < zero ? zero : value;
  } else if constexpr (kind == ActivationKind::leaky) {
    return value > zero ? value : value * slope;
  } else {
    return value;
  }
}

// The gradient of activate() at `seen`. As in torch, a NaN counts as positive for a ReLU alone.
template <ActivationKind kind, typename Value>
[[gnu::always_inline]] inline Value activation_gradient(Value seen, Value gradient, Value slope) {
  const Value zero{};
  if constexpr (kind == ActivationKind::relu) {
    return seen <= zero ? zero : gradient;
  } else if constexpr (kind == ActivationKind::leaky) {
    return seen > zero ? gradient : gradient * slope;
  } else {
    return gradient;
  }
}

}  // namespace ghostsr
