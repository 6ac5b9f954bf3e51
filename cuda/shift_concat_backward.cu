#include "channel_plan.cuh"
#include "shift_concat_backward.cuh"

namespace ghostsr::cuda {

#define GHOSTSR_INSTANTIATE(T)                                                                         \
  template void launch_channel_plan(const DeviceTables<T>&, const ChannelPlanView<accumulator_t<T>>&,  \
                                    cudaStream_t);                                                     \
  template ShiftConcatBackwardPath shift_concat_backward_path(const ShiftConcatBackwardArguments<T>&); \
  template void launch_shift_concat_backward(const ShiftConcatBackwardArguments<T>&,                   \
                                             ShiftConcatBackwardPath, cudaStream_t);

GHOSTSR_INSTANTIATE(float)
GHOSTSR_INSTANTIATE(double)
GHOSTSR_INSTANTIATE(Float16)
GHOSTSR_INSTANTIATE(BFloat16)

template int64_t channel_plan_bytes<float>(int64_t, int64_t);
template int64_t channel_plan_bytes<double>(int64_t, int64_t);
template ChannelPlanView<float> channel_plan_view(void*, int64_t, int64_t);
template ChannelPlanView<double> channel_plan_view(void*, int64_t, int64_t);

}  // namespace ghostsr::cuda
