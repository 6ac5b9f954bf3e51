#include "core/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace ghostsr {
namespace {

SimdLevel choose_simd_level() {
  const SimdLevel supported = supported_simd_level();
  const char* requested = std::getenv("GHOSTSR_SIMD");
  if (requested == nullptr) {
    return supported;
  }
  for (const SimdLevel level : {SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512}) {
    if (std::strcmp(requested, simd_level_name(level)) == 0) {
      return std::min(level, supported);
    }
  }
  return supported;
}

}  // namespace

SimdLevel supported_simd_level() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return SimdLevel::portable;
  }
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has_avx512 ? SimdLevel::avx512 : SimdLevel::avx2;
#else
  return SimdLevel::portable;
#endif
}

SimdLevel simd_level() {
  static const SimdLevel level = choose_simd_level();
  return level;
}

const char* simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::avx2:
      return "avx2";
    case SimdLevel::avx512:
      return "avx512";
    case SimdLevel::portable:
      break;
  }
  return "portable";
}

}  // namespace ghostsr
