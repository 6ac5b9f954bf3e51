#include "core/shift_concat.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/ghost_sums.h"
#include "ops/layout.h"
#include "ops/map_memory.h"
#include "ops/shift_concat.h"
#include "ops/tables.h"
#include "ops/threads.h"

namespace ghostsr::ops {

Tensor run_shift_concat(const Tensor& given, const ChannelPlan& plan, const Activation& activation,
                        const OptionalTensor& given_residual, double residual_scale, bool channels_last) {
  const Tensor intrinsic = laid_out(given, channels_last);
  const OptionalTensor residual = laid_out(given_residual, channels_last);
  const auto channels = static_cast<int64_t>(plan.origins.size());
  Tensor output =
      cpu_map({intrinsic.size(0), channels, intrinsic.size(2), intrinsic.size(3)}, channels_last, intrinsic);
  if (output.numel() == 0) {
    return output;
  }
  dispatch_floating(intrinsic.scalar_type(), [&]<typename T>(T) {
    const ShiftConcatParams<T> params{
        .extent = extent_of(intrinsic),
        .output_channels = channels,
        .origins = plan.origins.data(),
        .radius = plan.radius,
        .intrinsic = data_of<T>(intrinsic),
        .intrinsic_strides = strides_of(intrinsic),
        .residual = data_of<T>(residual),
        .residual_strides = strides_of(residual),
        .output = mutable_data_of<T>(output),
        .output_strides = strides_of(output),
        .residual_scale = residual_scale,
        .activation = activation,
        .affine = plan.affine,
    };
    const int64_t tasks = shift_concat_tasks(params);
    parallel(tasks, output.numel() / tasks,
             [&](int64_t begin, int64_t end) { shift_concat(params, begin, end); });
  });
  return output;
}

Tensor intrinsic_gradient(const LaidOutGradient& maps, const ChannelPlan& plan,
                          OptionalTensor* grad_residual) {
  const GhostGradient& gradient = maps.gradient;
  const Tensor& grad_output = maps.grad_output;
  const auto map_of = [&](int64_t channels) {
    return cpu_map({grad_output.size(0), channels, grad_output.size(2), grad_output.size(3)},
                   maps.channels_last, grad_output);
  };
  Tensor grad_intrinsic = map_of(plan.intrinsic_channels);
  if (grad_residual != nullptr) {
    *grad_residual = map_of(grad_output.size(1));
  }
  if (grad_intrinsic.numel() == 0) {
    return grad_intrinsic;
  }
  dispatch_floating(grad_output.scalar_type(), [&]<typename T>(T) {
    const ShiftConcatBackwardParams<T> params{
        .extent = extent_of(grad_output),
        .intrinsic_channels = plan.intrinsic_channels,
        .origins = plan.origins.data(),
        .readers = plan.readers.data(),
        .reader_begin = plan.reader_begin.data(),
        .radius = plan.radius,
        .grad_output = data_of<T>(grad_output),
        .grad_output_strides = strides_of(grad_output),
        .activation = maps.activation(),
        .mask_source = gradient.mask_source,
        .output = data_of<T>(maps.output),
        .output_strides = strides_of(maps.output),
        .intrinsic = data_of<T>(maps.intrinsic),
        .intrinsic_strides = strides_of(maps.intrinsic),
        .grad_intrinsic = mutable_data_of<T>(grad_intrinsic),
        .grad_intrinsic_strides = strides_of(grad_intrinsic),
        .residual_scale = gradient.residual_scale,
        .grad_residual = grad_residual == nullptr ? nullptr : mutable_data_of<T>(**grad_residual),
        .grad_residual_strides = grad_residual == nullptr ? Strides{} : strides_of(**grad_residual),
    };
    const int64_t tasks = shift_concat_backward_tasks(params);
    parallel(tasks, grad_output.numel() / tasks,
             [&](int64_t begin, int64_t end) { shift_concat_backward(params, begin, end); });
  });
  return grad_intrinsic;
}

namespace {

Tensor shift_concat_cpu(const Tensor& intrinsic, const Tensor& source, const Tensor& shift,
                        const OptionalTensor& gain, const OptionalTensor& ghost_bias,
                        const OptionalTensor& order, const Name& activation, double negative_slope,
                        const OptionalTensor& prelu_weight, const OptionalTensor& residual,
                        double residual_scale) {
  check_map("intrinsic", intrinsic);
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  check_tables(tables, intrinsic.size(1), intrinsic);
  const ChannelPlan plan = read_tables(tables, intrinsic.size(1));
  const auto channels = static_cast<int64_t>(plan.origins.size());
  const ActivationArguments arguments{activation, negative_slope, prelu_weight};
  const ActivationKind kind = check_activation(arguments, channels, intrinsic);
  const std::vector<double> slopes = read_slopes(arguments, kind, channels);
  if (residual.has_value()) {
    check_like_output("residual", *residual,
                      {intrinsic.size(0), channels, intrinsic.size(2), intrinsic.size(3)}, intrinsic);
  }
  return run_shift_concat(intrinsic, plan, {kind, slopes.data()}, residual, residual_scale,
                          prefers_channels_last(intrinsic));
}

// The gradients of gains and of ghosts' biases; empty where they are not wanted.
std::pair<Tensor, Tensor> affine_gradients(const LaidOutGradient& maps, const ChannelPlan& plan, bool of_gain,
                                           bool of_bias) {
  const auto ghosts = static_cast<int64_t>(plan.ghost_outputs.size());
  const Tensor& like = maps.gradient.grad_output;
  const auto sums = [&](bool wanted, GhostSum kind) {
    return wanted ? to_vector(ghost_sums(maps, plan, kind, 0), {ghosts}, like) : empty_vector({0}, like);
  };
  if (!(of_gain && of_bias)) {
    return {sums(of_gain, GhostSum::chosen), sums(of_bias, GhostSum::total)};
  }
  const std::vector<double> pairs = ghost_sums(maps, plan, GhostSum::affine, 0);
  std::vector<double> products(ghosts);
  std::vector<double> totals(ghosts);
  for (int64_t ghost = 0; ghost < ghosts; ++ghost) {
    products[ghost] = pairs[2 * ghost];
    totals[ghost] = pairs[2 * ghost + 1];
  }
  return {to_vector(products, {ghosts}, like), to_vector(totals, {ghosts}, like)};
}

std::tuple<Tensor, Tensor, Tensor> shift_concat_backward_cpu(
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
  const ChannelPlan plan = read_tables(tables, gradient.intrinsic_channels);
  const LaidOutGradient maps(gradient);
  // Results must not alias one another, not even empty ones.
  const Tensor grad_intrinsic =
      output_mask[0] ? intrinsic_gradient(maps, plan, nullptr) : empty_vector({0}, grad_output);
  const auto [grad_gain, grad_ghost_bias] = affine_gradients(maps, plan, output_mask[1], output_mask[2]);
  return {grad_intrinsic, grad_gain, grad_ghost_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) {
  library.impl("shift_concat", GHOSTSR_BOX(&shift_concat_cpu));
  library.impl("shift_concat_backward", GHOSTSR_BOX(&shift_concat_backward_cpu));
}

}  // namespace ghostsr::ops
