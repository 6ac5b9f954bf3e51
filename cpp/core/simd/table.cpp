// All kernels of the level that this file is compiled for.
#include "core/simd/kernels.h"

namespace ghostsr {

namespace fused::GHOSTSR_SIMD_LEVEL {
extern const Stages table;
}

namespace GHOSTSR_SIMD_LEVEL {

template <typename T>
void shift_concat_rows(const ShiftConcatParams<T>&, int64_t, int64_t);
template <typename T>
void shift_concat_pixels(const ShiftConcatParams<T>&, int64_t, int64_t);
template <typename T>
void shift_concat_backward_rows(const ShiftConcatBackwardParams<T>&, int64_t, int64_t);
template <typename T>
void shift_concat_backward_pixels(const ShiftConcatBackwardParams<T>&, int64_t, int64_t, accumulator_t<T>*,
                                  int64_t*);
template <typename T>
void ghost_sum_rows(const GhostSumParams<T>&, int64_t, int64_t, int64_t, accumulator_t<T>*, double*);
template <typename T>
void ghost_sum_pixels(const GhostSumParams<T>&, int64_t, int64_t, int64_t, int64_t, accumulator_t<T>*,
                      double*);
void transform_tile(const SpectrumGrid&, const TileWindow&, float*, float*, int64_t);
void add_column(const SpectrumGrid&, const SpectrumColumn&, double*);

#define GHOSTSR_SHIFT_KERNELS(T)    \
  {shift_concat_rows<T>,            \
   shift_concat_pixels<T>,          \
   shift_concat_backward_rows<T>,   \
   shift_concat_backward_pixels<T>, \
   ghost_sum_rows<T>,               \
   ghost_sum_pixels<T>}

// Made by the compiler: code of this level must not run before the level is chosen.
extern const Kernels table;
constinit const Kernels table = {GHOSTSR_SHIFT_KERNELS(float),   GHOSTSR_SHIFT_KERNELS(double),
                                 GHOSTSR_SHIFT_KERNELS(Float16), GHOSTSR_SHIFT_KERNELS(BFloat16),
                                 {transform_tile, add_column},   &fused::GHOSTSR_SIMD_LEVEL::table};

}  // namespace GHOSTSR_SIMD_LEVEL
}  // namespace ghostsr
