#include "ops/convolution.h"

#include <torch/csrc/stable/ops.h>

#include <array>

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
  Tensor result = convolve(input, weight, bias, geometry);
  const bool channels_last = convolves_to_channels_last(input, weight);
  if (channels_last ? prefers_channels_last(result) || result.is_contiguous() : result.is_contiguous()) {
    return result;
  }
  // Some of torch's convolutions choose another layout than the one promised to the compiler.
  Tensor relaid =
      empty_map({result.size(0), result.size(1), result.size(2), result.size(3)}, channels_last, result);
  torch::stable::copy_(relaid, result);
  return relaid;
}

}  // namespace ghostsr::ops
