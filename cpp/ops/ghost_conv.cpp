#include "ops/checks.h"
#include "ops/convolution.h"
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
                      const ChannelPlan& plan, const ConvolutionGeometry& geometry,
                      const Epilogue& epilogue) {
  const bool relu = check_activation(epilogue.activation);
  const IntList size = convolved_size(input, weight, geometry);
  if (epilogue.residual.has_value()) {
    check_like_output("residual", *epilogue.residual,
                      {input.size(0), static_cast<int64_t>(plan.origins.size()), size[0], size[1]}, input);
  }
  const Tensor intrinsic = convolve(input, weight, bias, geometry);
  return run_shift_concat(intrinsic, plan, relu, epilogue.residual, epilogue.residual_scale,
                          convolves_to_channels_last(input, weight));
}

Tensor ghost_conv_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const Tensor& source, const Tensor& shift, const OptionalTensor& gain,
                      const OptionalTensor& ghost_bias, const OptionalTensor& order, const IntList& stride,
                      const IntList& padding, const IntList& dilation, int64_t groups,
                      const ActivationName& activation, const OptionalTensor& residual,
                      double residual_scale) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  check_tables(tables, weight.size(0), input);
  const ChannelPlan plan = read_tables(tables, weight.size(0));
  return run_ghost_conv(input, weight, bias, plan, geometry, {activation, residual, residual_scale});
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
  return run_ghost_conv(input, weight, bias, plan, geometry, {activation, residual, residual_scale});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) {
  library.impl("convolution", TORCH_BOX(&checked_convolution));
  library.impl("ghost_conv", TORCH_BOX(&ghost_conv_cpu));
  library.impl("ghost_conv_learned", TORCH_BOX(&ghost_conv_learned_cpu));
}

}  // namespace ghostsr::ops
