#include "core/cpu_features.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace ghostsr {
namespace {

TEST(SimdLevel, IsTheSupportedOneUnlessALowerOneIsRequested) {
  const char* requested = std::getenv("GHOSTSR_SIMD");
  SimdLevel expected = supported_simd_level();
  if (requested != nullptr && std::string(requested) == "portable") {
    expected = SimdLevel::portable;
  }
  if (requested != nullptr && std::string(requested) == "avx2" && expected > SimdLevel::avx2) {
    expected = SimdLevel::avx2;
  }
  if (requested != nullptr && std::string(requested) == "avx512" && expected > SimdLevel::avx512) {
    expected = SimdLevel::avx512;
  }
  EXPECT_EQ(simd_level(), expected);
}

TEST(SimdLevel, HasTheNameThatRequestsIt) {
  EXPECT_STREQ(simd_level_name(SimdLevel::portable), "portable");
  EXPECT_STREQ(simd_level_name(SimdLevel::avx2), "avx2");
  EXPECT_STREQ(simd_level_name(SimdLevel::avx512), "avx512");
  EXPECT_STREQ(simd_level_name(SimdLevel::amx), "amx");
}

}  // namespace
}  // namespace ghostsr
