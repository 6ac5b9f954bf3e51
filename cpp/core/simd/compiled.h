#pragma once

#include <vector>

#include "core/cpu_features.h"

namespace ghostsr {

// The instruction levels that this build holds kernels for, lowest first.
inline std::vector<SimdLevel> compiled_simd_levels() {
#ifdef GHOSTSR_HAS_X86
  return {SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512};
#else
  return {SimdLevel::portable};
#endif
}

}  // namespace ghostsr
