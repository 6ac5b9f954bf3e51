// The stages of the level that this file is compiled for.
#include "core/fused/stages.h"

#include "core/fused/kernels/epilogue.h"
#include "core/fused/kernels/input_transform.h"
#include "core/fused/kernels/multiply.h"
#include "core/fused/kernels/output_transform.h"
#include "core/fused/kernels/pack.h"
#include "core/fused/kernels/tiles.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

static void fence() { stream_fence(); }

extern const Stages table;
constinit const Stages table = {pack,       transform_input, multiply, transform_output, finish_row,
                                finish_row, multiply_tiles,  fence,    kKernelRows,      kHasTiles};

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
