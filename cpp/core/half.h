#pragma once

#include <bit>
#include <cstdint>

namespace ghostsr {

// Storage types of two bytes, laid out as torch's. Arithmetic is done in float.

struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  [[gnu::always_inline]] explicit BFloat16(float value) {
    const uint32_t wide = std::bit_cast<uint32_t>(value);
    // Rounds to nearest even; a NaN keeps a mantissa bit so that it does not round to infinity.
    bits = (wide & 0x7fffffffU) > 0x7f800000U
               ? static_cast<uint16_t>((wide >> 16U) | 0x40U)
               : static_cast<uint16_t>((wide + 0x7fffU + ((wide >> 16U) & 1U)) >> 16U);
  }
  [[gnu::always_inline]] explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U);
  }
};

struct Float16 {
  uint16_t bits;

  Float16() = default;
  [[gnu::always_inline]] explicit Float16(float value) {
    const uint32_t wide = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (wide >> 16U) & 0x8000U;
    const uint32_t magnitude = wide & 0x7fffffffU;
    if (magnitude > 0x7f800000U) {
      bits = static_cast<uint16_t>(sign | 0x7e00U);
    } else if (magnitude >= 0x477ff000U) {
      bits = static_cast<uint16_t>(sign | 0x7c00U);
    } else if (magnitude < 0x38800000U) {
      // Adding 0.5 lines a subnormal's bits up with the end of the mantissa and lets the hardware round them.
      const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
      bits = static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000U));
    } else {
      const uint32_t odd = (magnitude >> 13U) & 1U;
      bits = static_cast<uint16_t>(sign | ((magnitude + 0xc8000fffU + odd) >> 13U));
    }
  }
  [[gnu::always_inline]] explicit operator float() const {
    const uint32_t sign = (bits & 0x8000U) << 16U;
    const uint32_t magnitude = (bits & 0x7fffU);
    if (magnitude >= 0x7c00U) {
      return std::bit_cast<float>(sign | 0x7f800000U | ((magnitude & 0x3ffU) << 13U));
    }
    // Moves the exponent's bias by a multiplication with 2^112, which is exact for subnormals too.
    const float scaled = std::bit_cast<float>(magnitude << 13U) * 0x1p112F;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
  }
};

static_assert(sizeof(BFloat16) == 2 && sizeof(Float16) == 2);

// The type that sums and products of T are kept in.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using accumulator_t = typename Accumulator<T>::type;

}  // namespace ghostsr
