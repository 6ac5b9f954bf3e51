// Activations as the tests draw and define them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/activation.h"

namespace ghostsr {

inline constexpr ActivationKind kActivations[] = {ActivationKind::none, ActivationKind::relu,
                                                  ActivationKind::leaky};

inline std::string activation_name(ActivationKind kind) {
  return kind == ActivationKind::none ? "none" : kind == ActivationKind::relu ? "relu" : "leaky";
}

// Powers of two, so that products are exact, of either sign and zero.
inline std::vector<double> test_slopes(int64_t channels) {
  constexpr double kSlopes[] = {0.25, 2.0, 0.5, -0.5, 0.125, 0.0, -1.0};
  std::vector<double> slopes;
  for (int64_t channel = 0; channel < channels; ++channel) {
    slopes.push_back(kSlopes[channel % 7]);
  }
  return slopes;
}

// The definition.
inline double activated(ActivationKind kind, double slope, double value) {
  const double factor = kind == ActivationKind::none ? 1.0 : kind == ActivationKind::relu ? 0.0 : slope;
  return value > 0 ? value : factor * value;
}

inline double derivative(ActivationKind kind, double slope, double seen) {
  return activated(kind, slope, seen > 0 ? 1.0 : -1.0) * (seen > 0 ? 1.0 : -1.0);
}

}  // namespace ghostsr
