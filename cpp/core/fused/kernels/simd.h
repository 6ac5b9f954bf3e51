// Vectors of floats by the compiler's vector extensions. Every kernel header is compiled once for each SIMD
// level, in a namespace of its own: a template of the standard library instantiated here could be merged by
// the linker with one that baseline code calls, so none is used.
#pragma once

#include <cstddef>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if !defined(GHOSTSR_SIMD_LEVEL)
#error "define GHOSTSR_SIMD_LEVEL, the name of the level and of its namespace"
#endif

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

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// clang-format off
using Vector1 = float __attribute__((vector_size(4)));
using Vector4 = float __attribute__((vector_size(16)));
using Vector8 = float __attribute__((vector_size(32)));
using Vector16 = float __attribute__((vector_size(64)));
using Unaligned1 = float __attribute__((vector_size(4), may_alias));
using Unaligned4 = float __attribute__((vector_size(16), aligned(4), may_alias));
using Unaligned8 = float __attribute__((vector_size(32), aligned(4), may_alias));
using Unaligned16 = float __attribute__((vector_size(64), aligned(4), may_alias));
// clang-format on

template <int lanes>
struct VectorTypes;
template <>
struct VectorTypes<1> {
  using Aligned = Vector1;
  using Unaligned = Unaligned1;
};
template <>
struct VectorTypes<4> {
  using Aligned = Vector4;
  using Unaligned = Unaligned4;
};
template <>
struct VectorTypes<8> {
  using Aligned = Vector8;
  using Unaligned = Unaligned8;
};
template <>
struct VectorTypes<16> {
  using Aligned = Vector16;
  using Unaligned = Unaligned16;
};

inline constexpr int kLanes = GHOSTSR_SIMD_LANES;

// The width for groups of eight channels: a whole one, or half of one where vectors are shorter.
inline constexpr int kGroupLanes = kLanes < 8 ? kLanes : 8;

template <int lanes>
using Vector = typename VectorTypes<lanes>::Aligned;

template <int lanes>
GHOSTSR_ALWAYS_INLINE Vector<lanes> load(const float* from) {
  return *reinterpret_cast<const typename VectorTypes<lanes>::Unaligned*>(from);
}

template <int lanes>
GHOSTSR_ALWAYS_INLINE void store(float* to, Vector<lanes> value) {
  *reinterpret_cast<typename VectorTypes<lanes>::Unaligned*>(to) = value;
}

// Writes past the caches; `to` is aligned to the vector's size.
GHOSTSR_ALWAYS_INLINE void stream(float* to, Vector<kLanes> value) {
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

GHOSTSR_ALWAYS_INLINE void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

template <int lanes>
struct Lanes {
  static constexpr int value = lanes;
};

// Calls body(Lanes<n>, channel) over `channels`, a multiple of 8: by full vectors, and a half one at the end
// where vectors hold sixteen.
template <class Body>
GHOSTSR_ALWAYS_INLINE void for_each_vector(int channels, Body body) {
  int channel = 0;
  for (; channel + kLanes <= channels; channel += kLanes) {
    body(Lanes<kLanes>{}, channel);
  }
  if constexpr (kLanes > 8) {
    if (channel < channels) {
      body(Lanes<8>{}, channel);
    }
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
