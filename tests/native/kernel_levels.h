// The kernels of every level that this machine has, and sixteen lanes on any x86 machine: the code of the
// AVX-512 level, short of its instructions.
#pragma once

#include <vector>

#include "core/simd/kernels.h"

namespace ghostsr {

#ifdef GHOSTSR_HAS_X86
namespace wide {
extern const Kernels table;
}
#endif

struct KernelLevel {
  const char* name;
  const Kernels* kernels;
};

inline std::vector<KernelLevel> kernel_levels() {
  std::vector<KernelLevel> levels;
#ifdef GHOSTSR_HAS_X86
  levels.push_back({"wide", &wide::table});
#endif
  for (const SimdLevel level : compiled_simd_levels()) {
    if (level <= supported_simd_level()) {
      levels.push_back({simd_level_name(level), &kernels(level)});
    }
  }
  return levels;
}

}  // namespace ghostsr
