#include "core/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(GHOSTSR_HAS_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ghostsr {
namespace {

#ifdef GHOSTSR_HAS_X86
// The system saves the large registers of tiles only for processes that have asked for them.
bool may_use_tiles() {
#if defined(GHOSTSR_HAS_AMX) && defined(__linux__)
  // Some compilers that know the instructions have no names of them for __builtin_cpu_supports.
  constexpr unsigned kTiles = (1U << 24U) | (1U << 22U);  // AMX-TILE and AMX-BF16 in edx of leaf 7
  constexpr unsigned kRounding = 1U << 5U;                // AVX512-BF16 in eax of leaf 7.1
  constexpr int kRequestPermission = 0x1023;
  constexpr int kTileData = 18;
  const auto has_instructions = [] {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kTiles) == kTiles &&
           __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kRounding) == kRounding;
  };
  static const bool permitted =
      has_instructions() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
#else
  return false;
#endif
}
#endif

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
#ifdef GHOSTSR_HAS_X86
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
