// Vectors of floats as the stages use them.
#pragma once

#include <type_traits>

#include "core/fused/stages.h"
#include "core/simd/dispatch.h"
#include "core/simd/vector.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

using namespace ::ghostsr::GHOSTSR_SIMD_LEVEL;

template <int lanes>
using Floats = Vector<float, lanes>;

// The width for groups of eight channels: a whole one, or half of one where vectors are shorter.
inline constexpr int kGroupLanes = kLanes < kGroup ? kLanes : kGroup;

// Four floats, four times. The compiler would shuffle what one load can do.
GHOSTSR_ALWAYS_INLINE Floats<16> load_repeated_four(const float* from) {
#if defined(__AVX512F__)
  // Not _mm512_broadcast_f32x4: GCC 12 warns of the uninitialised register in its own header.
  return _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(from));
#else
  const Floats<4> four = load<4>(from);
  return Floats<16>{four[0], four[1], four[2], four[3], four[0], four[1], four[2], four[3],
                    four[0], four[1], four[2], four[3], four[0], four[1], four[2], four[3]};
#endif
}

#if defined(__AVX512BF16__)
// Unlike narrow() it makes denormal numbers zeros, as products of tiles do.
GHOSTSR_ALWAYS_INLINE __m256i rounded(Floats<16> value) { return (__m256i)_mm512_cvtneps_pbh(value); }
#endif

// As store() and stream(), by the processor's own rounding where it has it.
template <int lanes, class T>
GHOSTSR_ALWAYS_INLINE void store_rounded(T* to, Floats<lanes> value) {
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<T, BFloat16> && lanes == 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), rounded(value));
    return;
  }
#endif
  store<lanes>(to, value);
}

template <class T>
GHOSTSR_ALWAYS_INLINE void stream_rounded(T* to, Floats<kLanes> value) {
  if constexpr (std::is_same_v<T, float>) {
    stream(to, value);
  } else {
#if defined(__AVX512BF16__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), rounded(value));
#else
    store<kLanes>(to, value);
#endif
  }
}

// Calls body(Constant<n>, channel) over `channels`, a multiple of 8: by full vectors, and a half one at the
// end where vectors hold sixteen.
template <class Body>
GHOSTSR_ALWAYS_INLINE void for_each_vector(int channels, Body body) {
  int channel = 0;
  for (; channel + kLanes <= channels; channel += kLanes) {
    body(Constant<kLanes>{}, channel);
  }
  if constexpr (kLanes > kGroup) {
    if (channel < channels) {
      body(Constant<kGroup>{}, channel);
    }
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
