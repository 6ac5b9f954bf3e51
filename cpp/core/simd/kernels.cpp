#include "core/simd/kernels.h"

namespace ghostsr {

#define GHOSTSR_DECLARE_LEVEL(level) \
  namespace level {                  \
  extern const Kernels table;        \
  }

GHOSTSR_DECLARE_LEVEL(portable)
#ifdef GHOSTSR_HAS_X86
GHOSTSR_DECLARE_LEVEL(avx2)
GHOSTSR_DECLARE_LEVEL(avx512)
#endif
#ifdef GHOSTSR_HAS_AMX
GHOSTSR_DECLARE_LEVEL(amx)
#endif

std::vector<SimdLevel> compiled_simd_levels() {
#ifdef GHOSTSR_HAS_AMX
  return {SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512, SimdLevel::amx};
#elif defined(GHOSTSR_HAS_X86)
  return {SimdLevel::portable, SimdLevel::avx2, SimdLevel::avx512};
#else
  return {SimdLevel::portable};
#endif
}

const Kernels& kernels([[maybe_unused]] SimdLevel level) {
#ifdef GHOSTSR_HAS_AMX
  if (level >= SimdLevel::amx) {
    return amx::table;
  }
#endif
#ifdef GHOSTSR_HAS_X86
  if (level >= SimdLevel::avx512) {
    return avx512::table;
  }
  if (level >= SimdLevel::avx2) {
    return avx2::table;
  }
#endif
  return portable::table;
}

template <>
const ShiftKernels<float>& shift_kernels(const Kernels& table) {
  return table.float32;
}
template <>
const ShiftKernels<double>& shift_kernels(const Kernels& table) {
  return table.float64;
}
template <>
const ShiftKernels<Float16>& shift_kernels(const Kernels& table) {
  return table.float16;
}
template <>
const ShiftKernels<BFloat16>& shift_kernels(const Kernels& table) {
  return table.bfloat16;
}

}  // namespace ghostsr
