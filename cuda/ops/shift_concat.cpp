#include "shift_concat.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../shift_concat.h"
#include "device_map.h"
#include "ghost_sums.h"
#include "ops/boxed.h"
#include "ops/checks.h"

namespace ghostsr::ops {

using torch::stable::accelerator::DeviceGuard;

Tensor queue_shift_concat(const Tensor& intrinsic, const OptionalTensor& convolution_bias,
                          const GhostTables& tables, const Tensor& shift, const LayerActivation& activation,
                          const OptionalTensor& residual, double residual_scale, bool channels_last) {
  const int64_t channels = intrinsic.size(1) + tables.source.size(0);
  Tensor output = empty_map({intrinsic.size(0), channels, intrinsic.size(2), intrinsic.size(3)},
                            channels_last, intrinsic);
  if (output.numel() == 0) {
    return output;
  }
  dispatch_floating(intrinsic.scalar_type(), [&]<typename T>(T) {
    const cuda::ShiftConcatArguments<T> arguments{
        .extent = extent_of(intrinsic),
        .tables = device_tables<T>(tables, shift, intrinsic.size(1), activation),
        .intrinsic = data_of<T>(intrinsic),
        .intrinsic_strides = strides_of(intrinsic),
        .convolution_bias = number_table<T>(convolution_bias),
        .residual = data_of<T>(residual),
        .residual_strides = residual.has_value() ? strides_of(*residual) : Strides{},
        .output = mutable_data_of<T>(output),
        .output_strides = strides_of(output),
        .residual_scale = static_cast<accumulator_t<T>>(residual_scale),
    };
    cuda::launch_shift_concat(arguments, cuda::shift_concat_path(arguments), current_stream(intrinsic));
  });
  return output;
}

namespace {

Tensor shift_concat_cuda(const Tensor& intrinsic, const Tensor& source, const Tensor& shift,
                         const OptionalTensor& gain, const OptionalTensor& ghost_bias,
                         const OptionalTensor& order, const Name& activation, double negative_slope,
                         const OptionalTensor& prelu_weight, const OptionalTensor& residual,
                         double residual_scale) {
  check_map("intrinsic", intrinsic);
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  check_tables(tables, intrinsic.size(1), intrinsic);
  const ActivationKind kind = check_activation({activation, negative_slope, prelu_weight},
                                               intrinsic.size(1) + source.size(0), intrinsic);
  if (residual.has_value()) {
    check_like_output(
        "residual", *residual,
        {intrinsic.size(0), intrinsic.size(1) + source.size(0), intrinsic.size(2), intrinsic.size(3)},
        intrinsic);
  }
  const DeviceGuard guard(intrinsic.get_device_index());
  return queue_shift_concat(intrinsic, std::nullopt, tables, shift, {kind, negative_slope, prelu_weight},
                            residual, residual_scale, prefers_channels_last(intrinsic));
}

std::tuple<Tensor, Tensor, Tensor> shift_concat_backward_cuda(
    const Tensor& grad_output, const Tensor& source, const Tensor& shift, const OptionalTensor& gain,
    const OptionalTensor& ghost_bias, const OptionalTensor& order, const OptionalTensor& intrinsic,
    const OptionalTensor& output, const Name& activation, double negative_slope, double residual_scale,
    const std::vector<bool>& output_mask) {
  if (output_mask.size() != 3) {
    fail("output_mask: found " + std::to_string(output_mask.size()) + " values; 3 are needed");
  }
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  const GhostGradient gradient =
      check_ghost_gradient(grad_output, tables, intrinsic, output, {activation, negative_slope, std::nullopt},
                           residual_scale, output_mask[1]);
  const DeviceGuard guard(grad_output.get_device_index());
  const cudaStream_t stream = current_stream(grad_output);
  const int64_t ghosts = source.size(0);
  const int64_t channels = gradient.intrinsic_channels;
  Tensor grad_intrinsic =
      output_mask[0] ? empty_map({grad_output.size(0), channels, grad_output.size(2), grad_output.size(3)},
                                 prefers_channels_last(grad_output), grad_output)
                     : empty_vector({0}, grad_output);
  Tensor grad_gain = empty_vector({output_mask[1] ? ghosts : 0}, grad_output);
  Tensor grad_ghost_bias = empty_vector({output_mask[2] ? ghosts : 0}, grad_output);
  dispatch_floating(grad_output.scalar_type(), [&]<typename T>(T) {
    const DevicePlan<T> plan = queue_plan<T>(
        tables, shift, channels, {gradient.activation, gradient.slope, std::nullopt}, grad_output, stream);
    if (grad_intrinsic.numel() > 0) {
      const cuda::ShiftConcatBackwardArguments<T> arguments{
          .extent = extent_of(grad_output),
          .intrinsic_channels = static_cast<int32_t>(channels),
          .channels = static_cast<int32_t>(channels + ghosts),
          .readers = plan.view.readers,
          .reader_begin = plan.view.reader_begin,
          .shift_range = plan.view.shift_range,
          .gradient = output_gradient<T>(gradient),
          .grad_intrinsic = mutable_data_of<T>(grad_intrinsic),
          .grad_intrinsic_strides = strides_of(grad_intrinsic),
      };
      cuda::launch_shift_concat_backward(arguments, cuda::shift_concat_backward_path(arguments), stream);
    }
    const auto sum = [&](GhostSum kind, const Tensor& result) {
      if (result.numel() > 0) {
        queue_ghost_sums(gradient, plan, kind, 0, ghosts, false, mutable_data_of<T>(result), stream);
      }
    };
    sum(GhostSum::chosen, grad_gain);
    sum(GhostSum::total, grad_ghost_bias);
  });
  return {grad_intrinsic, grad_gain, grad_ghost_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CUDA, library) {
  library.impl("shift_concat", GHOSTSR_BOX(&shift_concat_cuda));
  library.impl("shift_concat_backward", GHOSTSR_BOX(&shift_concat_backward_cuda));
}

}  // namespace ghostsr::ops
