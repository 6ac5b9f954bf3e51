// Eight lanes of a number as one value; the compiler maps it to the registers of the level it compiles for.
#pragma once

#include <cstdint>
#include <type_traits>

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

// The value where the sign is positive, else zero, without a branch: signs are as good as random.
template <typename L>
[[gnu::always_inline]] inline L keep_where_positive(L sign, L value) {
  const L zero = {};
  return sign > zero ? value : zero;
}

}  // namespace GHOSTSR_SIMD_LEVEL
}  // namespace ghostsr
