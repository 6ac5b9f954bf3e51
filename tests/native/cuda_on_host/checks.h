// What the tests of kernels have in common.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "strided_map.h"

namespace ghostsr::cuda_test {

using StorageTypes = testing::Types<float, double, Float16, BFloat16>;

struct StorageTypeNames {
  template <typename T>
  static std::string GetName(int) {
    return std::is_same_v<T, float>     ? "float"
           : std::is_same_v<T, double>  ? "double"
           : std::is_same_v<T, Float16> ? "half"
                                        : "bfloat16";
  }
};

// Of a result next to the largest of its terms, where sums are kept in A.
template <typename A>
constexpr double relative_tolerance() {
  return sizeof(A) == 8 ? 1e-12 : 1e-5;
}

// The smallest step between numbers of T near `value`.
template <typename T>
double rounding_step(double value) {
  const int mantissa_bits = std::is_same_v<T, double>    ? 52
                            : std::is_same_v<T, float>   ? 23
                            : std::is_same_v<T, Float16> ? 10
                                                         : 7;
  const int least_exponent = std::is_same_v<T, Float16> ? -14 : -126;
  const int exponent = value == 0 ? least_exponent : std::max(std::ilogb(value), least_exponent);
  return std::ldexp(1.0, exponent - mantissa_bits);
}

// A sanitizer is some ten times slower.
inline int random_cases(int count) {
#ifdef __SANITIZE_ADDRESS__
  return count / 5;
#else
  return count;
#endif
}

// Every byte of an element of the map was written once, and none in between.
template <typename T>
void expect_each_element_written_once(const StridedMap<T>& map, const host_cuda::Loan& loan) {
  std::vector<uint8_t> expected(map.span_bytes(), 0);
  map.each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
    std::fill_n(expected.begin() + map.offset(n, c, y, x) * static_cast<int64_t>(sizeof(T)), sizeof(T), 1);
  });
  ASSERT_EQ(loan.writes(), expected);
}

// Equal to `expected` rounded to T; with a tolerance, next to it within tolerance * max(1, |expected|) and a
// step of T.
template <typename T>
void expect_map(const StridedMap<T>& found, const std::vector<double>& expected, double tolerance) {
  size_t index = 0;
  found.each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
    if (testing::Test::HasFatalFailure()) {
      return;
    }
    const double value = expected[index++];
    const double slack =
        tolerance == 0 ? 0 : tolerance * std::max(1.0, std::abs(value)) + rounding_step<T>(value);
    ASSERT_NEAR(to_double(found.at(n, c, y, x)), to_double(from_double<T>(value)), slack)
        << "at " << n << ", " << c << ", " << y << ", " << x;
  });
}

template <typename T>
void expect_same_maps(const StridedMap<T>& found, const StridedMap<T>& expected, double tolerance) {
  std::vector<double> values;
  expected.each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
    values.push_back(to_double(expected.at(n, c, y, x)));
  });
  expect_map(found, values, tolerance);
}

}  // namespace ghostsr::cuda_test
