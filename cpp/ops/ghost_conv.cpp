#include <array>
#include <tuple>

#include "ops/checks.h"
#include "ops/convolution.h"
#include "ops/convolution_path.h"
#include "ops/fused_layer.h"
#include "ops/packed_weight.h"
#include "ops/shift_concat.h"
#include "ops/shift_selection.h"
#include "ops/tables.h"

namespace ghostsr::ops {
namespace {

struct Epilogue {
  const ActivationName& activation;
  const OptionalTensor& residual;
  double residual_scale;
};

Tensor run_ghost_conv(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const ChannelPlan& plan, const ConvolutionGeometry& geometry, const Epilogue& epilogue,
                      const OptionalTensor& packed_weight) {
  const Activation activation{check_activation(epilogue.activation)};
  const IntList size = convolved_size(input, weight, geometry);
  if (epilogue.residual.has_value()) {
    check_like_output("residual", *epilogue.residual,
                      {input.size(0), static_cast<int64_t>(plan.origins.size()), size[0], size[1]}, input);
  }
  const auto ghosts = static_cast<int64_t>(plan.ghost_outputs.size());
  if (choose_path(input, weight, geometry, ghosts) != ConvolutionPath::aten) {
    return run_fused(input, fused_shape(input, weight, geometry, ghosts),
                     packed_or_fresh(weight, geometry.groups, packed_weight), bias, plan,
                     {activation, epilogue.residual, epilogue.residual_scale});
  }
  const Tensor intrinsic = convolve(input, weight, bias, geometry);
  return run_shift_concat(intrinsic, plan, activation, epilogue.residual, epilogue.residual_scale,
                          convolves_to_channels_last(input, weight));
}

Tensor ghost_conv_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const Tensor& source, const Tensor& shift, const OptionalTensor& gain,
                      const OptionalTensor& ghost_bias, const OptionalTensor& order, const IntList& stride,
                      const IntList& padding, const IntList& dilation, int64_t groups,
                      const ActivationName& activation, const OptionalTensor& residual, double residual_scale,
                      const OptionalTensor& packed_weight) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  check_tables(tables, weight.size(0), input);
  const ChannelPlan plan = read_tables(tables, weight.size(0));
  return run_ghost_conv(input, weight, bias, plan, geometry, {activation, residual, residual_scale},
                        packed_weight);
}

Tensor ghost_conv_learned_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                              const Tensor& source, const Tensor& logits, const OptionalTensor& noise,
                              double tau, const OptionalTensor& gain, const OptionalTensor& ghost_bias,
                              const OptionalTensor& order, const IntList& stride, const IntList& padding,
                              const IntList& dilation, int64_t groups, const ActivationName& activation,
                              const OptionalTensor& residual, double residual_scale) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  const GhostTables tables{source, nullptr, gain, ghost_bias, order};
  check_tables(tables, weight.size(0), input);
  const int64_t ghosts = source.size(0);
  const int64_t max_shift = check_logits(logits, noise, tau, ghosts, input);
  const ChannelPlan plan =
      read_tables(tables, selected_shifts(logits, noise, tau, ghosts, max_shift), weight.size(0));
  return run_ghost_conv(input, weight, bias, plan, geometry, {activation, residual, residual_scale},
                        std::nullopt);
}

Tensor convolution_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const IntList& stride, const IntList& padding, const IntList& dilation,
                       int64_t groups) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  if (choose_path(input, weight, geometry, 0) == ConvolutionPath::aten) {
    return checked_convolution(input, weight, bias, stride, padding, dilation, groups);
  }
  const ChannelPlan plan = make_channel_plan(weight.size(0), 0, nullptr, nullptr, nullptr, nullptr, nullptr);
  return run_fused(input, fused_shape(input, weight, geometry, 0), pack_weight(weight, groups), bias, plan,
                   {Activation{}, std::nullopt, 1.0});
}

// Reads shapes, dtypes and strides alone, so the tensors may be uninitialised.
bool takes_packed_weight_cpu(const Tensor& input, const Tensor& weight, const IntList& stride,
                             const IntList& padding, const IntList& dilation, int64_t groups,
                             int64_t ghosts) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, std::nullopt, geometry);
  return choose_path(input, weight, geometry, ghosts) != ConvolutionPath::aten;
}

// The gradient of the input of a convolution is the convolution of the output's gradient with the transposed,
// mirrored weight.
Tensor convolution_backward_input_cpu(const Tensor& grad_output, const Tensor& weight, const IntList& padding,
                                      int64_t groups) {
  const ConvolutionGeometry transposed{
      {1, 1}, {weight.size(2) - 1 - padding[0], weight.size(3) - 1 - padding[1]}, {1, 1}, groups};
  fused::Shape shape = fused_shape(grad_output, weight, transposed, 0);
  shape.intrinsic = weight.size(1) * groups;
  const ChannelPlan plan = make_channel_plan(shape.intrinsic, 0, nullptr, nullptr, nullptr, nullptr, nullptr);
  return run_fused(grad_output, shape, pack_transposed_weight(weight, groups), std::nullopt, plan,
                   {Activation{}, std::nullopt, 1.0});
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward_cpu(const Tensor& grad_output, const Tensor& input,
                                                            const Tensor& weight, const IntList& stride,
                                                            const IntList& padding, const IntList& dilation,
                                                            int64_t groups,
                                                            const std::vector<bool>& output_mask) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution_backward(grad_output, input, weight, geometry, output_mask);
  std::array<bool, 3> from_aten{output_mask[0], output_mask[1], output_mask[2]};
  const bool by_own_path = output_mask[0] &&
                           choose_path(input, weight, geometry, 0) != ConvolutionPath::aten &&
                           grad_output.stride(1) == 1;
  from_aten[0] = output_mask[0] && !by_own_path;
  auto [grad_input, grad_weight, grad_bias] =
      convolve_backward(grad_output, input, weight, geometry, from_aten);
  if (by_own_path) {
    grad_input = convolution_backward_input_cpu(grad_output, weight, padding, groups);
  }
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) {
  library.impl("convolution", TORCH_BOX(&convolution_cpu));
  library.impl("convolution_backward", TORCH_BOX(&convolution_backward_cpu));
  library.impl("pack_weight", TORCH_BOX(&pack_weight));
  library.impl("takes_packed_weight", TORCH_BOX(&takes_packed_weight_cpu));
  library.impl("ghost_conv", TORCH_BOX(&ghost_conv_cpu));
  library.impl("ghost_conv_learned", TORCH_BOX(&ghost_conv_learned_cpu));
}

}  // namespace ghostsr::ops
