#include "ghost_sum.cuh"

namespace ghostsr::cuda {

#define GHOSTSR_INSTANTIATE(T)                                                        \
  template int64_t ghost_sum_parts(const Extent&, int64_t, const OutputGradient<T>&); \
  template void launch_ghost_sum(const GhostSumArguments<T>&, cudaStream_t);

GHOSTSR_INSTANTIATE(float)
GHOSTSR_INSTANTIATE(double)
GHOSTSR_INSTANTIATE(Float16)
GHOSTSR_INSTANTIATE(BFloat16)

#define GHOSTSR_INSTANTIATE_REDUCTION(A, Sum)                                                         \
  template void launch_reduce_parts(const A*, int64_t, int32_t, int64_t, const ChannelLink<A>*, Sum*, \
                                    cudaStream_t);

GHOSTSR_INSTANTIATE_REDUCTION(float, float)
GHOSTSR_INSTANTIATE_REDUCTION(float, double)
GHOSTSR_INSTANTIATE_REDUCTION(float, Float16)
GHOSTSR_INSTANTIATE_REDUCTION(float, BFloat16)
GHOSTSR_INSTANTIATE_REDUCTION(double, double)

}  // namespace ghostsr::cuda
