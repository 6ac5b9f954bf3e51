// Vectors of numbers by the compiler's vector extensions, which it maps to the registers of the level that it
// compiles for. Every file that includes this is compiled once for each SIMD level, in a namespace of its
// own: a function of the standard library instantiated here could be merged by the linker with one that code
// of a lower level calls, so none is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/half.h"
#include "core/simd/block_sizes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if !defined(GHOSTSR_SIMD_LEVEL)
#error "define GHOSTSR_SIMD_LEVEL, the name of the level and of its namespace"
#endif

// Floats of the level's widest registers.
#if !defined(GHOSTSR_SIMD_LANES)
#if defined(__AVX512F__)
#define GHOSTSR_SIMD_LANES 16
#elif defined(__AVX2__)
#define GHOSTSR_SIMD_LANES 8
#else
#define GHOSTSR_SIMD_LANES 4
#endif
#endif

#define GHOSTSR_ALWAYS_INLINE [[gnu::always_inline]] inline

namespace ghostsr {

template <typename T, int lanes>
struct VectorTypes {
  typedef T Aligned __attribute__((vector_size(lanes * sizeof(T))));
  typedef T Unaligned __attribute__((vector_size(lanes * sizeof(T)), aligned(sizeof(T)), may_alias));
};

template <typename T, int lanes>
using Vector = typename VectorTypes<T, lanes>::Aligned;

namespace GHOSTSR_SIMD_LEVEL {

// Floats of a register.
inline constexpr int kLanes = GHOSTSR_SIMD_LANES;

template <typename A>
using Group = Vector<A, kGroup>;

template <int lanes, typename T>
GHOSTSR_ALWAYS_INLINE Vector<T, lanes> load_raw(const T* from) {
  return *reinterpret_cast<const typename VectorTypes<T, lanes>::Unaligned*>(from);
}

template <int lanes, typename T>
GHOSTSR_ALWAYS_INLINE void store_raw(T* to, Vector<T, lanes> value) {
  *reinterpret_cast<typename VectorTypes<T, lanes>::Unaligned*>(to) = value;
}

// The storage types of two bytes, as half.h converts single ones.
template <int lanes>
GHOSTSR_ALWAYS_INLINE Vector<float, lanes> widen(const BFloat16* from) {
  using Bits = Vector<uint32_t, lanes>;
  const auto bits = load_raw<lanes>(reinterpret_cast<const uint16_t*>(from));
  return reinterpret_cast<Vector<float, lanes>>(__builtin_convertvector(bits, Bits) << 16U);
}

template <int lanes>
GHOSTSR_ALWAYS_INLINE Vector<float, lanes> widen(const Float16* from) {
  using Bits = Vector<uint32_t, lanes>;
  using Floats = Vector<float, lanes>;
  const Bits bits = __builtin_convertvector(load_raw<lanes>(reinterpret_cast<const uint16_t*>(from)), Bits);
  const Bits magnitude = bits & 0x7fffU;
  const Floats scaled = reinterpret_cast<Floats>(magnitude << 13U) * 0x1p112F;
  const Bits special = 0x7f800000U | ((magnitude & 0x3ffU) << 13U);
  return reinterpret_cast<Floats>(((bits & 0x8000U) << 16U) |
                                  (magnitude >= 0x7c00U ? special : reinterpret_cast<Bits>(scaled)));
}

template <int lanes>
GHOSTSR_ALWAYS_INLINE void narrow(BFloat16* to, Vector<float, lanes> value) {
  using Bits = Vector<uint32_t, lanes>;
  const Bits wide = reinterpret_cast<Bits>(value);
  const Bits rounded = (wide + 0x7fffU + ((wide >> 16U) & 1U)) >> 16U;
  const Bits bits = (wide & 0x7fffffffU) > 0x7f800000U ? (wide >> 16U) | 0x40U : rounded;
  store_raw<lanes>(reinterpret_cast<uint16_t*>(to), __builtin_convertvector(bits, Vector<uint16_t, lanes>));
}

template <int lanes>
GHOSTSR_ALWAYS_INLINE void narrow(Float16* to, Vector<float, lanes> value) {
  using Bits = Vector<uint32_t, lanes>;
  using Floats = Vector<float, lanes>;
  const Bits wide = reinterpret_cast<Bits>(value);
  const Bits magnitude = wide & 0x7fffffffU;
  const Floats shifted = reinterpret_cast<Floats>(magnitude) + 0.5F;
  const Bits subnormal = reinterpret_cast<Bits>(shifted) - 0x3f000000U;
  const Bits normal = (magnitude + 0xc8000fffU + ((magnitude >> 13U) & 1U)) >> 13U;
  const Bits infinite = Bits{} + 0x7c00U;
  const Bits nan = Bits{} + 0x7e00U;
  const Bits finite = magnitude < 0x38800000U ? subnormal : normal;
  const Bits rounded = magnitude >= 0x477ff000U ? infinite : finite;
  const Bits bits = ((wide >> 16U) & 0x8000U) | (magnitude > 0x7f800000U ? nan : rounded);
  store_raw<lanes>(reinterpret_cast<uint16_t*>(to), __builtin_convertvector(bits, Vector<uint16_t, lanes>));
}

// Vectors are of the type that sums of T are kept in, whatever lies in memory.
template <int lanes, typename T>
GHOSTSR_ALWAYS_INLINE Vector<accumulator_t<T>, lanes> load(const T* from) {
  if constexpr (std::is_same_v<T, accumulator_t<T>>) {
    return load_raw<lanes>(from);
  } else {
    return widen<lanes>(from);
  }
}

template <int lanes, typename T>
GHOSTSR_ALWAYS_INLINE void store(T* to, Vector<accumulator_t<T>, lanes> value) {
  if constexpr (std::is_same_v<T, accumulator_t<T>>) {
    store_raw<lanes>(to, value);
  } else {
    narrow<lanes>(to, value);
  }
}

// One element from each of `lanes` places, as numbers of type A.
template <typename A, int lanes, typename T>
GHOSTSR_ALWAYS_INLINE Vector<A, lanes> gather(const T* const* base, std::ptrdiff_t offset) {
  const auto at = [&](int lane) __attribute__((always_inline)) { return static_cast<A>(base[lane][offset]); };
  if constexpr (lanes == 8) {
    return Vector<A, 8>{at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)};
  } else {
    static_assert(lanes == 4);
    return Vector<A, 4>{at(0), at(1), at(2), at(3)};
  }
}

// Turns the vectors of a square's rows into those of its columns.
template <typename A>
GHOSTSR_ALWAYS_INLINE void transpose(Group<A> (&square)[kGroup]) {
  Group<A> pairs[kGroup];
  for (int row = 0; row < kGroup; row += 2) {
    pairs[row] = __builtin_shufflevector(square[row], square[row + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[row + 1] = __builtin_shufflevector(square[row], square[row + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  Group<A> fours[kGroup];
  for (int half = 0; half < kGroup; half += kGroup / 2) {
    for (int odd = 0; odd < 2; ++odd) {
      const Group<A>& upper = pairs[half + odd];
      const Group<A>& lower = pairs[half + odd + 2];
      fours[half + 2 * odd] = __builtin_shufflevector(upper, lower, 0, 1, 8, 9, 4, 5, 12, 13);
      fours[half + 2 * odd + 1] = __builtin_shufflevector(upper, lower, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int row = 0; row < kGroup / 2; ++row) {
    square[row] = __builtin_shufflevector(fours[row], fours[row + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    square[row + 4] = __builtin_shufflevector(fours[row], fours[row + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// Writes past the caches; `to` is aligned to the vector's size.
GHOSTSR_ALWAYS_INLINE void stream(float* to, Vector<float, kLanes> value) {
#if defined(__AVX512F__) && GHOSTSR_SIMD_LANES == 16
  _mm512_stream_ps(to, value);
#elif defined(__AVX__) && GHOSTSR_SIMD_LANES == 8
  _mm256_stream_ps(to, value);
#elif defined(__x86_64__) && GHOSTSR_SIMD_LANES == 4
  _mm_stream_ps(to, value);
#else
  store<kLanes>(to, value);
#endif
}

// Orders streamed writes before what the thread does next.
GHOSTSR_ALWAYS_INLINE void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace GHOSTSR_SIMD_LEVEL
}  // namespace ghostsr
