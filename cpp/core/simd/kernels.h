// Kernels that are compiled once per vector instruction level, each into a namespace of its own.
//
// A translation unit of a higher level must not define anything that the linker could merge with a lower
// level's copy: code here takes raw pointers, and calls no inline function of the standard library that might
// not be inlined.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/half.h"
#include "core/shift_concat.h"
#include "core/shift_selection.h"

#define GHOSTSR_DECLARE_KERNELS(level)                                                                      \
  namespace ghostsr::level {                                                                                \
  template <typename T>                                                                                     \
  void shift_concat_rows(const ShiftConcatParams<T>& params, int64_t begin, int64_t end);                   \
  template <typename T>                                                                                     \
  void shift_concat_pixels(const ShiftConcatParams<T>& params, int64_t begin, int64_t end);                 \
  template <typename T>                                                                                     \
  void shift_concat_backward_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end);  \
  template <typename T>                                                                                     \
  void shift_concat_backward_pixels(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end, \
                                    accumulator_t<T>* workspace);                                           \
  template <typename T>                                                                                     \
  void ghost_sum_rows(const GhostSumParams<T>& params, int64_t ghost, int64_t begin, int64_t end,           \
                      accumulator_t<T>* workspace, double* sums);                                           \
  template <typename T>                                                                                     \
  void ghost_sum_pixels(const GhostSumParams<T>& params, int64_t reach, int64_t width, int64_t begin,       \
                        int64_t end, accumulator_t<T>* workspace, double* sums);                            \
  }

GHOSTSR_DECLARE_KERNELS(portable)
GHOSTSR_DECLARE_KERNELS(avx2)

// Calls the kernel of the highest level that was compiled and that this process may use.
#ifdef GHOSTSR_HAS_X86
#define GHOSTSR_CALL_KERNEL(name, ...)     \
  do {                                     \
    if (simd_level() >= SimdLevel::avx2) { \
      avx2::name(__VA_ARGS__);             \
    } else {                               \
      portable::name(__VA_ARGS__);         \
    }                                      \
  } while (false)
#else
#define GHOSTSR_CALL_KERNEL(name, ...) portable::name(__VA_ARGS__)
#endif
