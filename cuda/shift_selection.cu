#include "shift_selection.cuh"

namespace ghostsr::cuda {

#define GHOSTSR_INSTANTIATE(L)                                                             \
  template void launch_select_shift(const SelectionArguments<L>&, int64_t*, cudaStream_t); \
  template void launch_selection_gradient(const SelectionArguments<L>&, const double*, L*, L*, cudaStream_t);

GHOSTSR_INSTANTIATE(float)
GHOSTSR_INSTANTIATE(double)
GHOSTSR_INSTANTIATE(Float16)
GHOSTSR_INSTANTIATE(BFloat16)

}  // namespace ghostsr::cuda
