#include "core/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace ghostsr {
namespace {

// The value that the bits mean, from the definition of the format.
double decoded(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  const double scale = std::ldexp(1.0, (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
  return sign * scale * (exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits));
}

template <typename Half>
struct Format;
template <>
struct Format<Float16> {
  static constexpr int exponent_bits = 5;
  static constexpr int mantissa_bits = 10;
  static constexpr uint16_t infinity = 0x7c00;
};
template <>
struct Format<BFloat16> {
  static constexpr int exponent_bits = 8;
  static constexpr int mantissa_bits = 7;
  static constexpr uint16_t infinity = 0x7f80;
};

template <typename Half>
double value_of(uint16_t bits) {
  return decoded(bits, Format<Half>::exponent_bits, Format<Half>::mantissa_bits);
}

template <typename Half>
Half from_bits(uint16_t bits) {
  Half half;
  half.bits = bits;
  return half;
}

template <typename Half>
class TwoByteType : public testing::Test {};
using TwoByteTypes = testing::Types<Float16, BFloat16>;
TYPED_TEST_SUITE(TwoByteType, TwoByteTypes);

TYPED_TEST(TwoByteType, WidensEveryPatternExactly) {
  for (uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto pattern = static_cast<uint16_t>(bits);
    const auto widened = static_cast<float>(from_bits<TypeParam>(pattern));
    const double expected = value_of<TypeParam>(pattern);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(widened)) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(widened), expected) << bits;
      ASSERT_EQ(std::signbit(widened), (bits & 0x8000U) != 0) << bits;
    }
  }
}

TYPED_TEST(TwoByteType, NarrowsWhatItWidened) {
  for (uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto pattern = static_cast<uint16_t>(bits);
    const TypeParam again(static_cast<float>(from_bits<TypeParam>(pattern)));
    if (std::isnan(value_of<TypeParam>(pattern))) {
      ASSERT_TRUE(std::isnan(value_of<TypeParam>(again.bits))) << bits;
    } else {
      ASSERT_EQ(again.bits, pattern);
    }
  }
}

TYPED_TEST(TwoByteType, RoundsToTheNearestAndTiesToEven) {
  // Between each pair of neighbours: the middle, and the floats beside it.
  for (uint16_t low = 0; low < Format<TypeParam>::infinity; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    const double below = value_of<TypeParam>(low);
    // The largest value's next would-be neighbour is where infinity starts from.
    const double above = high == Format<TypeParam>::infinity
                             ? 2 * below - value_of<TypeParam>(static_cast<uint16_t>(low - 1))
                             : value_of<TypeParam>(high);
    const auto middle = static_cast<float>((below + above) / 2);
    const uint16_t even = low % 2 == 0 ? low : high;
    ASSERT_EQ(TypeParam(middle).bits, even) << low;
    ASSERT_EQ(TypeParam(std::nextafter(middle, 0.0F)).bits, low) << low;
    ASSERT_EQ(TypeParam(std::nextafter(middle, INFINITY)).bits, high) << low;
    ASSERT_EQ(TypeParam(-middle).bits, even | 0x8000U) << low;
  }
}

TYPED_TEST(TwoByteType, KeepsInfinityAndNan) {
  EXPECT_EQ(TypeParam(INFINITY).bits, Format<TypeParam>::infinity);
  EXPECT_EQ(TypeParam(std::numeric_limits<float>::max()).bits, Format<TypeParam>::infinity);
  // A NaN whose only bits are among those cut off must not become infinite.
  for (const uint32_t bits : {0x7f800001U, 0xff800001U, 0x7fffffffU, 0x7fc00000U}) {
    EXPECT_TRUE(std::isnan(value_of<TypeParam>(TypeParam(std::bit_cast<float>(bits)).bits))) << bits;
  }
}

}  // namespace
}  // namespace ghostsr
