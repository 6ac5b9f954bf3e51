// Which vector instructions this process may use.
#pragma once

namespace ghostsr {

// Each level includes the ones before it. `avx2` means AVX2 with FMA, `avx512` means AVX-512 F, BW, DQ and
// VL; `amx` means tiles of AMX with products of bfloat16, which the process has leave to use.
enum class SimdLevel { portable, avx2, avx512, amx };

// The highest level that both the processor and the operating system support.
SimdLevel supported_simd_level();

// The level that kernels are chosen by: the supported one, or a lower one named by the environment variable
// GHOSTSR_SIMD ("portable", "avx2", "avx512" or "amx"). A level that the processor lacks, or an unknown name,
// changes nothing. The variable is read once, on the first call.
SimdLevel simd_level();

const char* simd_level_name(SimdLevel level);

}  // namespace ghostsr
