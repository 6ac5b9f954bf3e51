// Eight lanes of a number as one value; the compiler maps it to the registers of the level it compiles for.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/activation.h"
#include "core/half.h"

namespace ghostsr {

template <typename T>
struct Lanes {
  typedef T type __attribute__((vector_size(8 * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <typename T>
using lanes_t = typename Lanes<T>::type;

constexpr int64_t kLanes = 8;

// Compiled into the namespace of each level, as the kernels that use them are.
namespace GHOSTSR_SIMD_LEVEL {

template <typename T>
[[gnu::always_inline]] inline lanes_t<accumulator_t<T>> load(const T* from) {
  using A = accumulator_t<T>;
  if constexpr (std::is_same_v<T, A>) {
    return *reinterpret_cast<const lanes_t<A>*>(from);
  } else {
    return lanes_t<A>{A(from[0]), A(from[1]), A(from[2]), A(from[3]),
                      A(from[4]), A(from[5]), A(from[6]), A(from[7])};
  }
}

// One element from each of eight places.
template <typename T>
[[gnu::always_inline]] inline lanes_t<accumulator_t<T>> gather(const T* const* base, int64_t offset) {
  using A = accumulator_t<T>;
  return lanes_t<A>{A(base[0][offset]), A(base[1][offset]), A(base[2][offset]), A(base[3][offset]),
                    A(base[4][offset]), A(base[5][offset]), A(base[6][offset]), A(base[7][offset])};
}

template <typename T>
[[gnu::always_inline]] inline void store(T* to, lanes_t<accumulator_t<T>> value) {
  using A = accumulator_t<T>;
  if constexpr (std::is_same_v<T, A>) {
    *reinterpret_cast<lanes_t<A>*>(to) = value;
  } else {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      to[lane] = T(value[lane]);
    }
  }
}

// Turns eight vectors of a square's rows into those of its columns.
template <typename L>
[[gnu::always_inline]] inline void transpose(L (&square)[kLanes]) {
  L pairs[kLanes];
  for (int64_t row = 0; row < kLanes; row += 2) {
    pairs[row] = __builtin_shufflevector(square[row], square[row + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[row + 1] = __builtin_shufflevector(square[row], square[row + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  L fours[kLanes];
  for (int64_t half = 0; half < kLanes; half += kLanes / 2) {
    for (int64_t odd = 0; odd < 2; ++odd) {
      const L& upper = pairs[half + odd];
      const L& lower = pairs[half + odd + 2];
      fours[half + 2 * odd] = __builtin_shufflevector(upper, lower, 0, 1, 8, 9, 4, 5, 12, 13);
      fours[half + 2 * odd + 1] = __builtin_shufflevector(upper, lower, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int64_t row = 0; row < kLanes / 2; ++row) {
    square[row] = __builtin_shufflevector(fours[row], fours[row + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    square[row + 4] = __builtin_shufflevector(fours[row], fours[row + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// Eight numbers of a table that is kept in double precision.
template <typename A>
[[gnu::always_inline]] inline lanes_t<A> load_rounded(const double* from) {
  return __builtin_convertvector(load(from), lanes_t<A>);
}

// The slope of one output channel and of eight; zero where the activation has none.
template <ActivationKind kActivation, typename A>
[[gnu::always_inline]] inline A slope_of(const Activation& activation, int64_t channel) {
  return kActivation == ActivationKind::leaky ? static_cast<A>(activation.slopes[channel]) : A(0);
}
template <ActivationKind kActivation, typename A>
[[gnu::always_inline]] inline lanes_t<A> slopes_of(const Activation& activation, int64_t channel) {
  if constexpr (kActivation == ActivationKind::leaky) {
    return load_rounded<A>(activation.slopes + channel);
  } else {
    return lanes_t<A>{};
  }
}

}  // namespace GHOSTSR_SIMD_LEVEL
}  // namespace ghostsr
