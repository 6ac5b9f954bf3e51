// What the gradients of a ghost layer's small parameters share.
#pragma once

#include "../ghost_sum.h"
#include "device_map.h"

namespace ghostsr::ops {

// Queues the sums of `kind`, [ghosts * width], with the ghosts' gains multiplied in where asked.
template <typename T, typename Sum>
void queue_ghost_sums(const GhostGradient& gradient, const DevicePlan<T>& plan, GhostSum kind,
                      int64_t max_shift, int64_t ghosts, bool with_gain, Sum* sums, cudaStream_t stream) {
  using A = accumulator_t<T>;
  const cuda::OutputGradient<T> output = output_gradient<T>(gradient);
  const Extent extent = extent_of(gradient.grad_output);
  const int64_t parts = cuda::ghost_sum_parts(extent, ghosts, output);
  const int64_t width = cuda::ghost_sum_width(kind, max_shift);
  const Tensor partial = torch::stable::empty(IntList{parts * ghosts * width},
                                              sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float,
                                              std::nullopt, gradient.grad_output.device());
  auto* partial_data = mutable_data_of<A>(partial);
  if (parts > 0) {
    const cuda::GhostSumArguments<T> arguments{
        .extent = extent,
        .ghosts = static_cast<int32_t>(ghosts),
        .links = plan.view.ghosts,
        .gradient = output,
        .kind = kind,
        .max_shift = static_cast<int32_t>(max_shift),
        .partial = partial_data,
    };
    cuda::launch_ghost_sum(arguments, stream);
  }
  cuda::launch_reduce_parts(partial_data, parts, static_cast<int32_t>(ghosts), width,
                            with_gain ? plan.view.ghosts : nullptr, sums, stream);
}

}  // namespace ghostsr::ops
