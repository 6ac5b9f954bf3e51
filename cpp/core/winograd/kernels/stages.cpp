// The stages of the level that this file is compiled for.
#include "core/winograd/stages.h"

#include "core/winograd/kernels/epilogue.h"
#include "core/winograd/kernels/input_transform.h"
#include "core/winograd/kernels/multiply.h"
#include "core/winograd/kernels/output_transform.h"

namespace ghostsr::winograd::GHOSTSR_SIMD_LEVEL {

static void fence() { stream_fence(); }

extern const Stages table;
const Stages table = {transform_input, multiply, transform_output, finish_row, fence, kKernelRows};

}  // namespace ghostsr::winograd::GHOSTSR_SIMD_LEVEL
