#include "shift_concat.cuh"

namespace ghostsr::cuda {

#define GHOSTSR_INSTANTIATE(T)                                                \
  template ShiftConcatPath shift_concat_path(const ShiftConcatArguments<T>&); \
  template void launch_shift_concat(const ShiftConcatArguments<T>&, ShiftConcatPath, cudaStream_t);

GHOSTSR_INSTANTIATE(float)
GHOSTSR_INSTANTIATE(double)
GHOSTSR_INSTANTIATE(Float16)
GHOSTSR_INSTANTIATE(BFloat16)

}  // namespace ghostsr::cuda
