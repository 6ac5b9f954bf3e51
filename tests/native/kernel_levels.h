// The kernels of every level that this machine has, and sixteen lanes on any machine: the code of the AVX-512
// level, short of its instructions.
#pragma once

#include <vector>

#include "core/simd/kernels.h"

namespace ghostsr {

namespace wide {
extern const Kernels table;
}

struct KernelLevel {
  const char* name;
  const Kernels* kernels;
};

inline std::vector<KernelLevel> kernel_levels() {
  std::vector<KernelLevel> levels = {{"wide", &wide::table}};
  for (const SimdLevel level : compiled_simd_levels()) {
    if (level <= supported_simd_level()) {
      levels.push_back({simd_level_name(level), &kernels(level)});
    }
  }
  return levels;
}

}  // namespace ghostsr
