#include "ops/weight_gradient.h"

#include <torch/csrc/stable/ops.h>

#include <array>
#include <optional>
#include <tuple>

#include "ops/convolution.h"
#include "ops/dispatch.h"
#include "ops/layout.h"

namespace ghostsr::ops {
namespace {

// The product of two matrices in their own dtype. Autocast, which may be at work where a gradient is asked
// for, would cast the matrices of torch's other products down.
Tensor multiply(const Tensor& left, const Tensor& right) {
  const Tensor product = torch::stable::empty(IntList{left.size(0), right.size(1)}, left.scalar_type(),
                                              std::nullopt, left.device());
  using torch::stable::detail::from;
  std::array<StableIValue, 3> stack{from(left), from(right), from(product)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// One product of matrices is faster than torch's convolution, which gives each picture one.
Tensor pointwise_gradient(const Tensor& grad_output, const Tensor& input) {
  const Tensor product =
      multiply(torch::stable::transpose(matrix_of_pixels(grad_output), 0, 1), matrix_of_pixels(input));
  const Tensor wide = torch::stable::view(product, {product.size(0), 1, 1, product.size(1)});
  return torch::stable::transpose(torch::stable::transpose(wide, 2, 3), 1, 2);
}

// Torch pads few output channels to a vector, and few input channels not. With the maps exchanged the
// gradient is the same, mirrored: gradient[o, c, y, x] is the sum over p of grad_output[o, p] * input[c, p +
// (y, x) - 1].
Tensor gradient_of_few_outputs(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                               const ConvolutionGeometry& geometry) {
  const int64_t outputs = weight.size(0);
  const int64_t inputs = weight.size(1);
  const Tensor like = empty_map({inputs, outputs, 3, 3}, true, weight);
  const Tensor exchanged =
      std::get<1>(convolve_backward(input, grad_output, like, geometry, {false, true, false}));
  Tensor gradient = empty_map({outputs, inputs, 3, 3}, true, weight);
  const Strides from = strides_of(exchanged);
  const Strides to = strides_of(gradient);
  const auto* read = data_of<float>(exchanged);
  auto* written = mutable_data_of<float>(gradient);
  for (int64_t output = 0; output < outputs; ++output) {
    for (int64_t y = 0; y < 3; ++y) {
      for (int64_t x = 0; x < 3; ++x) {
        for (int64_t channel = 0; channel < inputs; ++channel) {
          written[output * to.batch + channel * to.channel + y * to.y + x * to.x] =
              read[channel * from.batch + output * from.channel + (2 - y) * from.y + (2 - x) * from.x];
        }
      }
    }
  }
  return gradient;
}

}  // namespace

OptionalTensor weight_gradient(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                               const ConvolutionGeometry& geometry, ConvolutionPath path) {
  // The last layer of a network has the three colors. For one or for many outputs nothing is won.
  constexpr int64_t kFewestOutputs = 2;
  constexpr int64_t kMostOutputs = 4;

  if (geometry.groups != 1) {
    return std::nullopt;
  }
  if (path == ConvolutionPath::pointwise) {
    return pointwise_gradient(grad_output, input);
  }
  const int64_t outputs = weight.size(0);
  if (path == ConvolutionPath::winograd && geometry.padding == IntList{1, 1} && outputs >= kFewestOutputs &&
      outputs <= kMostOutputs && weight.size(1) > kMostOutputs) {
    return gradient_of_few_outputs(grad_output, input, weight, geometry);
  }
  return std::nullopt;
}

}  // namespace ghostsr::ops
