// The slopes of an activation as the kernels read them; zero where it has none.
#pragma once

#include "core/activation.h"
#include "core/simd/vector.h"

namespace ghostsr::GHOSTSR_SIMD_LEVEL {

template <ActivationKind kActivation, typename A>
GHOSTSR_ALWAYS_INLINE A slope_of(const Activation& activation, int64_t channel) {
  return kActivation == ActivationKind::leaky ? static_cast<A>(activation.slopes[channel]) : A(0);
}

template <ActivationKind kActivation, typename A>
GHOSTSR_ALWAYS_INLINE Group<A> slopes_of(const Activation& activation, int64_t channel) {
  if constexpr (kActivation == ActivationKind::leaky) {
    return __builtin_convertvector(load<kGroup>(activation.slopes + channel), Group<A>);
  } else {
    return Group<A>{};
  }
}

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
