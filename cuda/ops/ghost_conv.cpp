#include <torch/csrc/stable/accelerator.h>

#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/convolution.h"
#include "shift_concat.h"
#include "shift_selection.h"

namespace ghostsr::ops {
namespace {

using torch::stable::accelerator::DeviceGuard;

struct Epilogue {
  const ActivationArguments& activation;
  const OptionalTensor& residual;
  double residual_scale;
};

void refuse_cache(const OptionalTensor& cache) {
  if (cache.has_value()) {
    fail("cache: found a tensor; on CUDA None is needed");
  }
}

Tensor convolution_cuda(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        const IntList& stride, const IntList& padding, const IntList& dilation,
                        int64_t groups, const OptionalTensor& cache) {
  refuse_cache(cache);
  return checked_convolution(input, weight, bias, stride, padding, dilation, groups);
}

// The convolution goes to a dense map of its own: torch keeps cuDNN's plans without the output's strides, so
// that one made for a dense map would write a slice of a larger map to the wrong places.
Tensor queue_ghost_conv(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        const GhostTables& tables, const Tensor& shift, const ConvolutionGeometry& geometry,
                        const Epilogue& epilogue) {
  const ActivationKind activation =
      check_activation(epilogue.activation, weight.size(0) + tables.source.size(0), input);
  const IntList size = convolved_size(input, weight, geometry);
  if (epilogue.residual.has_value()) {
    check_like_output("residual", *epilogue.residual,
                      {input.size(0), weight.size(0) + tables.source.size(0), size[0], size[1]}, input);
  }
  const bool plain = tables.source.size(0) == 0 && !tables.order.has_value() &&
                     activation == ActivationKind::none && !epilogue.residual.has_value() &&
                     epilogue.residual_scale == 1;
  if (plain) {
    return checked_convolution(input, weight, bias, geometry.stride, geometry.padding, geometry.dilation,
                               geometry.groups);
  }
  const Tensor intrinsic = convolve(input, weight, std::nullopt, geometry);
  return queue_shift_concat(
      intrinsic, bias, tables, shift,
      {activation, epilogue.activation.negative_slope, epilogue.activation.prelu_weight}, epilogue.residual,
      epilogue.residual_scale, convolves_to_channels_last(input, weight));
}

Tensor ghost_conv_cuda(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const Tensor& source, const Tensor& shift, const OptionalTensor& gain,
                       const OptionalTensor& ghost_bias, const OptionalTensor& order, const IntList& stride,
                       const IntList& padding, const IntList& dilation, int64_t groups,
                       const Name& activation, double negative_slope, const OptionalTensor& prelu_weight,
                       const OptionalTensor& residual, double residual_scale, int64_t shuffle,
                       const OptionalTensor& cache, bool /*learning*/) {
  refuse_cache(cache);
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  check_shuffle(shuffle, weight.size(0) + source.numel());
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  check_tables(tables, weight.size(0), input);
  const DeviceGuard guard(input.get_device_index());
  const Tensor output =
      queue_ghost_conv(input, weight, bias, tables, shift, geometry,
                       {{activation, negative_slope, prelu_weight}, residual, residual_scale});
  return shuffle == 1 ? output : pixel_shuffle(output, shuffle, convolves_to_channels_last(input, weight));
}

Tensor ghost_conv_learned_cuda(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                               const Tensor& source, const Tensor& logits, const OptionalTensor& noise,
                               double tau, const OptionalTensor& gain, const OptionalTensor& ghost_bias,
                               const OptionalTensor& order, const IntList& stride, const IntList& padding,
                               const IntList& dilation, int64_t groups, const Name& activation,
                               double negative_slope, const OptionalTensor& prelu_weight,
                               const OptionalTensor& residual, double residual_scale,
                               const OptionalTensor& cache) {
  refuse_cache(cache);
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  const GhostTables tables{source, nullptr, gain, ghost_bias, order};
  check_tables(tables, weight.size(0), input);
  const int64_t ghosts = source.size(0);
  check_logits(logits, noise, tau, ghosts, input);
  const DeviceGuard guard(input.get_device_index());
  const Tensor shift = queue_select_shift(logits, noise, tau, ghosts);
  return queue_ghost_conv(input, weight, bias, tables, shift, geometry,
                          {{activation, negative_slope, prelu_weight}, residual, residual_scale});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CUDA, library) {
  library.impl("convolution", GHOSTSR_BOX(&convolution_cuda));
  library.impl("convolution_backward", GHOSTSR_BOX(&checked_convolution_backward));
  library.impl("ghost_conv", GHOSTSR_BOX(&ghost_conv_cuda));
  library.impl("ghost_conv_learned", GHOSTSR_BOX(&ghost_conv_learned_cuda));
}

}  // namespace ghostsr::ops
