#include "../shift_selection.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "device_map.h"
#include "ghost_sums.h"
#include "ops/boxed.h"
#include "ops/checks.h"
#include "shift_selection.h"

namespace ghostsr::ops {
namespace {

using torch::stable::accelerator::DeviceGuard;

template <typename L>
cuda::SelectionArguments<L> selection_arguments(const Tensor& logits, const OptionalTensor& noise, double tau,
                                                int64_t ghosts) {
  return {
      .logits = data_of<L>(logits),
      .logits_row_step = logits.stride(0),
      .logits_column_step = logits.stride(1),
      .noise = data_of<L>(noise),
      .noise_row_step = noise.has_value() ? noise->stride(0) : 0,
      .noise_column_step = noise.has_value() ? noise->stride(1) : 0,
      .tau = tau,
      .rows = count_of("logits", logits.size(0)),
      .candidates = static_cast<int32_t>(logits.size(1)),
      .ghosts = count_of("source", ghosts),
  };
}

}  // namespace

Tensor queue_select_shift(const Tensor& logits, const OptionalTensor& noise, double tau, int64_t ghosts) {
  Tensor shift = torch::stable::empty(IntList{ghosts, 2}, ScalarType::Long, std::nullopt, logits.device());
  dispatch_floating(logits.scalar_type(), [&]<typename L>(L) {
    cuda::launch_select_shift(selection_arguments<L>(logits, noise, tau, ghosts),
                              mutable_data_of<int64_t>(shift), current_stream(logits));
  });
  return shift;
}

namespace {

Tensor select_shift_cuda(const Tensor& logits, const OptionalTensor& noise, double tau, int64_t ghosts) {
  check_logits(logits, noise, tau, ghosts, logits);
  const DeviceGuard guard(logits.get_device_index());
  return queue_select_shift(logits, noise, tau, ghosts);
}

std::tuple<Tensor, Tensor> shift_selection_backward_cuda(
    const Tensor& grad_output, const Tensor& intrinsic, const Tensor& source, const Tensor& logits,
    const OptionalTensor& noise, double tau, const OptionalTensor& gain, const OptionalTensor& ghost_bias,
    const OptionalTensor& order, const OptionalTensor& output, const Name& activation, double negative_slope,
    double residual_scale) {
  const GhostTables tables{source, nullptr, gain, ghost_bias, order};
  const OptionalTensor intrinsic_map = intrinsic;
  const GhostGradient gradient =
      check_ghost_gradient(grad_output, tables, intrinsic_map, output,
                           {activation, negative_slope, std::nullopt}, residual_scale, true);
  const int64_t ghosts = source.size(0);
  const int64_t max_shift = check_logits(logits, noise, tau, ghosts, grad_output);
  const DeviceGuard guard(grad_output.get_device_index());
  const cudaStream_t stream = current_stream(grad_output);
  const int64_t candidates = logits.size(1);
  const Tensor exact =
      torch::stable::empty(IntList{ghosts, candidates}, ScalarType::Double, std::nullopt, logits.device());
  Tensor scores = empty_vector({ghosts, candidates}, logits);
  Tensor grad_logits = empty_vector({logits.size(0), candidates}, logits);
  const Tensor shift = queue_select_shift(logits, noise, tau, ghosts);
  dispatch_floating(grad_output.scalar_type(), [&]<typename T>(T) {
    const DevicePlan<T> plan =
        queue_plan<T>(tables, shift, gradient.intrinsic_channels,
                      {gradient.activation, gradient.slope, std::nullopt}, grad_output, stream);
    queue_ghost_sums(gradient, plan, GhostSum::candidates, max_shift, ghosts, true,
                     mutable_data_of<double>(exact), stream);
  });
  dispatch_floating(logits.scalar_type(), [&]<typename L>(L) {
    cuda::launch_selection_gradient(selection_arguments<L>(logits, noise, tau, ghosts),
                                    data_of<double>(exact), mutable_data_of<L>(scores),
                                    mutable_data_of<L>(grad_logits), stream);
  });
  return {scores, grad_logits};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CUDA, library) {
  library.impl("select_shift", GHOSTSR_BOX(&select_shift_cuda));
  library.impl("shift_selection_backward", GHOSTSR_BOX(&shift_selection_backward_cuda));
}

}  // namespace ghostsr::ops
