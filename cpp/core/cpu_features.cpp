#include "core/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ghostsr {
namespace {

// The system saves the large registers of tiles only for processes that have asked for them.
bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
  constexpr int kRequestPermission = 0x1023;
  constexpr int kTileData = 18;
  static const bool permitted = __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                                __builtin_cpu_supports("avx512bf16") &&
                                syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
#else
  return false;
#endif
}

SimdLevel choose_simd_level() {
  const SimdLevel supported = supported_simd_level();
  const char* requested = std::getenv("GHOSTSR_SIMD");
  if (requested == nullptr) {
    return supported;
  }
  for (const SimdLevel level : {SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512, SimdLevel::amx}) {
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
  if (!has_avx512) {
    return SimdLevel::avx2;
  }
  return may_use_tiles() ? SimdLevel::amx : SimdLevel::avx512;
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
    case SimdLevel::amx:
      return "amx";
    case SimdLevel::portable:
      break;
  }
  return "portable";
}

}  // namespace ghostsr
