// The kernels of each instruction level, and the one place that chooses between them.
//
// Kernels are compiled once for each level, each into a namespace of its own. A translation unit of a higher
// level must not define anything that the linker could merge with a lower level's copy: code there takes raw
// pointers, and calls no inline function of the standard library that might not be inlined.
#pragma once

#include <cstdint>
#include <vector>

#include "core/correlation/spectra.h"
#include "core/cpu_features.h"
#include "core/fused/stages.h"
#include "core/half.h"
#include "core/shift_concat.h"
#include "core/shift_selection.h"

namespace ghostsr {

template <typename T>
struct ShiftKernels {
  // One row of one channel is a task of the ones by rows, all channels of a row of the ones by pixels.
  void (*concat_rows)(const ShiftConcatParams<T>& params, int64_t begin, int64_t end);
  void (*concat_pixels)(const ShiftConcatParams<T>& params, int64_t begin, int64_t end);
  void (*backward_rows)(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end);
  void (*backward_pixels)(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
                          accumulator_t<T>* workspace, int64_t* offsets);
  void (*sum_rows)(const GhostSumParams<T>& params, int64_t ghost, int64_t begin, int64_t end,
                   accumulator_t<T>* workspace, double* sums);
  // Adds to kGroup partial sums for each sum.
  void (*sum_pixels)(const GhostSumParams<T>& params, int64_t radius, int64_t width, int64_t begin,
                     int64_t end, accumulator_t<T>* workspace, double* sums);
};

struct Kernels {
  ShiftKernels<float> float32;
  ShiftKernels<double> float64;
  ShiftKernels<Float16> float16;
  ShiftKernels<BFloat16> bfloat16;
  SpectrumKernels spectrum;
  const fused::Stages* fused;
};

// The instruction levels that this build holds kernels for, lowest first.
std::vector<SimdLevel> compiled_simd_levels();

// Those of a level, or of the highest one below it that this build has.
const Kernels& kernels(SimdLevel level = simd_level());

template <typename T>
const ShiftKernels<T>& shift_kernels(const Kernels& table);

}  // namespace ghostsr
