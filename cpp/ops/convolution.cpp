#include "ops/convolution.h"

#include <torch/csrc/stable/ops.h>

#include <optional>

#include "ops/checks.h"
#include "ops/layout.h"

namespace ghostsr::ops {

Tensor convolve(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                const ConvolutionGeometry& geometry) {
  using torch::stable::detail::from;
  std::array<StableIValue, 9> stack{from(input),           from(weight),           from(bias),
                                    from(geometry.stride), from(geometry.padding), from(geometry.dilation),
                                    from(false),           from(IntList{0, 0}),    from(geometry.groups)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

bool convolves_to_channels_last(const Tensor& input, const Tensor& weight) {
  return prefers_channels_last(input) || prefers_channels_last(weight);
}

Tensor checked_convolution(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                           const IntList& stride, const IntList& padding, const IntList& dilation,
                           int64_t groups) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  // Some of torch's convolutions choose another layout than the one promised to the compiler.
  return densely_laid_out(convolve(input, weight, bias, geometry), convolves_to_channels_last(input, weight));
}

Tensor pixel_shuffle(const Tensor& map, int64_t factor, bool channels_last) {
  using torch::stable::detail::from;
  std::array<StableIValue, 2> stack{from(map), from(factor)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::pixel_shuffle", "", stack.data(), TORCH_ABI_VERSION));
  return densely_laid_out(torch::stable::detail::to<Tensor>(stack[0]), channels_last);
}

std::tuple<Tensor, Tensor, Tensor> convolve_backward(const Tensor& grad_output, const Tensor& input,
                                                     const Tensor& weight,
                                                     const ConvolutionGeometry& geometry,
                                                     const std::array<bool, 3>& output_mask) {
  using torch::stable::detail::from;
  const auto empty = [&] { return empty_vector({0}, grad_output); };
  if (!output_mask[0] && !output_mask[1] && !output_mask[2]) {
    return {empty(), empty(), empty()};
  }
  // std::vector<bool> holds no bools to refer to.
  const torch::headeronly::HeaderOnlyArrayRef<bool> mask(output_mask.data(), output_mask.size());
  std::array<StableIValue, 11> stack{from(grad_output),
                                     from(input),
                                     from(weight),
                                     from(std::optional<IntList>(IntList{weight.size(0)})),
                                     from(geometry.stride),
                                     from(geometry.padding),
                                     from(geometry.dilation),
                                     from(false),
                                     from(IntList{0, 0}),
                                     from(geometry.groups),
                                     from(mask)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::convolution_backward", "", stack.data(), TORCH_ABI_VERSION));
  const bool channels_last = convolves_to_channels_last(input, weight);
  std::array<Tensor, 3> gradients;
  for (size_t index = 0; index < gradients.size(); ++index) {
    const auto gradient = torch::stable::detail::to<Tensor>(stack[index]);
    gradients[index] = !output_mask[index]   ? empty()
                       : gradient.dim() == 4 ? densely_laid_out(gradient, channels_last)
                                             : gradient;
  }
  return {gradients[0], gradients[1], gradients[2]};
}

std::tuple<Tensor, Tensor, Tensor> checked_convolution_backward(const Tensor& grad_output,
                                                                const Tensor& input, const Tensor& weight,
                                                                const IntList& stride, const IntList& padding,
                                                                const IntList& dilation, int64_t groups,
                                                                const std::vector<bool>& output_mask) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution_backward(grad_output, input, weight, geometry, output_mask);
  return convolve_backward(grad_output, input, weight, geometry,
                           {output_mask[0], output_mask[1], output_mask[2]});
}

}  // namespace ghostsr::ops
