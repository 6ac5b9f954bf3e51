#include "ops/convolution_backward.h"

#include <torch/csrc/stable/ops.h>

#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/convolution.h"
#include "ops/convolution_path.h"
#include "ops/fused_layer.h"
#include "ops/layout.h"
#include "ops/packed_weight.h"
#include "ops/weight_gradient.h"

namespace ghostsr::ops {
namespace {

// The gradient of the input of a convolution is the convolution of the output's gradient with the transposed,
// mirrored weight.
Tensor convolution_backward_input(const Tensor& grad_output, const Tensor& weight,
                                  const fused::Shape& shape) {
  const ChannelPlan plan = make_channel_plan(shape.intrinsic, 0, nullptr, nullptr, nullptr, nullptr, nullptr);
  return run_fused(grad_output, {shape,
                                 pack_transposed_weight(weight, shape.groups),
                                 std::nullopt,
                                 plan,
                                 nullptr,
                                 {},
                                 std::nullopt,
                                 1.0});
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> convolution_gradients(const Tensor& given, const Tensor& input,
                                                         const Tensor& weight,
                                                         const ConvolutionGeometry& geometry,
                                                         const std::array<bool, 3>& output_mask) {
  const IntList& padding = geometry.padding;
  const int64_t groups = geometry.groups;
  // A loss gives gradients in a layout of its own; torch would convert it for each of its convolutions.
  const Tensor grad_output = laid_out(given, convolves_to_channels_last(input, weight));
  std::array<bool, 3> from_aten = output_mask;
  const ConvolutionGeometry transposed{
      {1, 1}, {weight.size(2) - 1 - padding[0], weight.size(3) - 1 - padding[1]}, {1, 1}, groups};
  fused::Shape shape = fused_shape(grad_output, weight, transposed, 0);
  shape.intrinsic = weight.size(1) * groups;
  const ConvolutionPath own = own_path(input, weight, geometry);
  const bool by_own_path = output_mask[0] && takes_own_path(own, shape, false);
  const bool forward_by_own_path = takes_own_path(own, fused_shape(input, weight, geometry, 0), false);
  const OptionalTensor own_grad_weight = output_mask[1] && forward_by_own_path
                                             ? weight_gradient(grad_output, input, weight, geometry, own)
                                             : std::nullopt;
  // Torch's convolutions compute the weight's gradient again for that of the bias, or the bias's slower.
  const bool by_sum = output_mask[2] && forward_by_own_path;
  from_aten[0] = output_mask[0] && !by_own_path;
  from_aten[1] = output_mask[1] && !own_grad_weight.has_value();
  from_aten[2] = output_mask[2] && !by_sum;
  auto [grad_input, grad_weight, grad_bias] =
      convolve_backward(grad_output, input, weight, geometry, from_aten);
  if (by_own_path) {
    grad_input = convolution_backward_input(grad_output, weight, shape);
  }
  if (own_grad_weight.has_value()) {
    grad_weight = *own_grad_weight;
  }
  if (by_sum) {
    grad_bias = torch::stable::sum(matrix_of_pixels(grad_output), IntList{0});
  }
  return {grad_input, grad_weight, grad_bias};
}

namespace {

std::tuple<Tensor, Tensor, Tensor> convolution_backward_cpu(const Tensor& grad_output, const Tensor& input,
                                                            const Tensor& weight, const IntList& stride,
                                                            const IntList& padding, const IntList& dilation,
                                                            int64_t groups,
                                                            const std::vector<bool>& output_mask) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution_backward(grad_output, input, weight, geometry, output_mask);
  return convolution_gradients(grad_output, input, weight, geometry,
                               {output_mask[0], output_mask[1], output_mask[2]});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) {
  library.impl("convolution_backward", GHOSTSR_BOX(&convolution_backward_cpu));
}

}  // namespace ghostsr::ops
