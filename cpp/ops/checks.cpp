#include "ops/checks.h"

#include <cmath>
#include <initializer_list>
#include <stdexcept>
#include <utility>

namespace ghostsr::ops {
namespace {

template <typename Range>
std::string list_text(const Range& values) {
  std::string text = "[";
  for (const int64_t value : values) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  }
  return text + "]";
}

std::string dtype_text(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

std::string device_text(const Tensor& tensor) {
  return tensor.is_cpu()    ? "cpu"
         : tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index())
                            : "another device";
}

bool is_floating(const Tensor& tensor) {
  const ScalarType type = tensor.scalar_type();
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
         type == ScalarType::BFloat16;
}

void check_size(const char* argument, const Tensor& found, const IntList& size) {
  const auto sizes = found.sizes();
  bool same = sizes.size() == size.size();
  for (size_t axis = 0; same && axis < size.size(); ++axis) {
    same = sizes[axis] == size[axis];
  }
  if (!same) {
    fail(std::string(argument) + ": found shape " + size_text(found) + "; " + list_text(size) + " is needed");
  }
}

void check_dtype_and_device(const char* argument, const Tensor& found, const Tensor& like) {
  if (found.scalar_type() != like.scalar_type()) {
    fail(std::string(argument) + ": found dtype " + dtype_text(found) + "; the input's " + dtype_text(like) +
         " is needed");
  }
  if (found.device() != like.device()) {
    fail(std::string(argument) + ": found on " + device_text(found) + "; the input's device " +
         device_text(like) + " is needed");
  }
}

void check_table(const char* argument, const Tensor& found, const IntList& size, const Tensor& like) {
  if (found.scalar_type() != ScalarType::Long && found.scalar_type() != ScalarType::Int) {
    fail(std::string(argument) + ": found dtype " + dtype_text(found) + "; int64 or int32 is needed");
  }
  check_size(argument, found, size);
  if (found.device() != like.device()) {
    fail(std::string(argument) + ": found on " + device_text(found) + "; the input's device " +
         device_text(like) + " is needed");
  }
}

void check_pair(const char* argument, const IntList& found, int64_t least) {
  if (found.size() != 2 || found[0] < least || found[1] < least) {
    fail(std::string(argument) + ": found " + list_text(found) + "; two integers of at least " +
         std::to_string(least) + " are needed");
  }
}

}  // namespace

void fail(const std::string& message) { throw std::runtime_error("ghostsr: " + message); }

std::string size_text(const Tensor& tensor) { return list_text(tensor.sizes()); }

void check_map(const char* argument, const Tensor& found) {
  if (found.dim() != 4) {
    fail(std::string(argument) + ": found shape " + size_text(found) + "; four axes [N, C, H, W] are needed");
  }
  if (!is_floating(found)) {
    fail(std::string(argument) + ": found dtype " + dtype_text(found) +
         "; float32, float64, float16 or bfloat16 is allowed");
  }
}

void check_groups(int64_t groups, const Tensor& weight) {
  if (groups < 1 || weight.size(0) % groups != 0) {
    fail("groups: found " + std::to_string(groups) + "; a divisor of the weight's " +
         std::to_string(weight.size(0)) + " filters is needed");
  }
}

void check_shuffle(int64_t shuffle, int64_t channels) {
  if (shuffle < 1 || shuffle > channels || channels % (shuffle * shuffle) != 0) {
    fail("shuffle: found " + std::to_string(shuffle) + "; a number whose square divides the " +
         std::to_string(channels) + " output channels is needed");
  }
}

void check_filters(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                   const ConvolutionGeometry& geometry) {
  check_map("input", input);
  check_map("weight", weight);
  check_dtype_and_device("weight", weight, input);
  check_pair("stride", geometry.stride, 1);
  check_pair("padding", geometry.padding, 0);
  check_pair("dilation", geometry.dilation, 1);
  check_groups(geometry.groups, weight);
  if (weight.numel() < 1) {
    fail("weight: found shape " + size_text(weight) +
         "; at least one filter of one channel and 1x1 elements is needed");
  }
  if (bias.has_value()) {
    check_size("bias", *bias, {weight.size(0)});
    check_dtype_and_device("bias", *bias, input);
  }
}

void check_input_size(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry) {
  const int64_t groups = geometry.groups;
  if (input.size(1) != weight.size(1) * groups) {
    fail("input: found " + std::to_string(input.size(1)) + " channels; the weight " + size_text(weight) +
         " with groups = " + std::to_string(groups) + " takes " + std::to_string(weight.size(1) * groups));
  }
  for (size_t axis = 0; axis < 2; ++axis) {
    const auto at = static_cast<int64_t>(2 + axis);
    const int64_t extent = geometry.dilation[axis] * (weight.size(at) - 1) + 1;
    if (input.size(at) < 1 || input.size(at) + 2 * geometry.padding[axis] < extent) {
      fail("input: found shape " + size_text(input) + "; with padding " + list_text(geometry.padding) +
           " it must be at least as large as the dilated filter, " + std::to_string(extent) + " along axis " +
           std::to_string(at));
    }
  }
}

void check_convolution(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const ConvolutionGeometry& geometry) {
  check_filters(input, weight, bias, geometry);
  check_input_size(input, weight, geometry);
}

IntList convolved_size(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry) {
  IntList size;
  for (int64_t axis = 0; axis < 2; ++axis) {
    const int64_t extent = geometry.dilation[axis] * (weight.size(2 + axis) - 1) + 1;
    size.push_back((input.size(2 + axis) + 2 * geometry.padding[axis] - extent) / geometry.stride[axis] + 1);
  }
  return size;
}

void check_convolution_backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                const ConvolutionGeometry& geometry, const std::vector<bool>& output_mask) {
  check_convolution(input, weight, std::nullopt, geometry);
  const IntList size = convolved_size(input, weight, geometry);
  check_like_output("grad_output", grad_output, {input.size(0), weight.size(0), size[0], size[1]}, input);
  if (output_mask.size() != 3) {
    fail("output_mask: found " + std::to_string(output_mask.size()) + " values; 3 are needed");
  }
}

void check_tables(const GhostTables& tables, int64_t intrinsic_channels, const Tensor& like) {
  if (tables.source.dim() != 1) {
    fail("source: found shape " + size_text(tables.source) + "; one axis [G] is needed");
  }
  const int64_t ghosts = tables.source.size(0);
  check_table("source", tables.source, {ghosts}, like);
  if (tables.shift != nullptr) {
    check_table("shift", *tables.shift, {ghosts, 2}, like);
  }
  if (tables.order.has_value()) {
    check_table("order", *tables.order, {intrinsic_channels + ghosts}, like);
  }
  const std::initializer_list<std::pair<const char*, const OptionalTensor*>> per_ghost = {
      {"gain", &tables.gain}, {"ghost_bias", &tables.ghost_bias}};
  for (const auto& [argument, tensor] : per_ghost) {
    if (tensor->has_value()) {
      check_size(argument, **tensor, {ghosts});
      check_dtype_and_device(argument, **tensor, like);
    }
  }
}

ActivationKind check_activation(const ActivationArguments& activation, int64_t channels, const Tensor& like) {
  const std::string& name = activation.name.text;
  if (!std::isfinite(activation.negative_slope)) {
    fail("negative_slope: found " + std::to_string(activation.negative_slope) +
         "; a finite number is needed");
  }
  if (name == "prelu") {
    if (!activation.prelu_weight.has_value()) {
      fail("prelu_weight: found None; a tensor is needed for \"prelu\"");
    }
    const Tensor& slopes = *activation.prelu_weight;
    if (slopes.dim() != 1 || (slopes.size(0) != 1 && slopes.size(0) != channels)) {
      fail("prelu_weight: found shape " + size_text(slopes) + "; [1] or [" + std::to_string(channels) +
           "] is needed");
    }
    check_dtype_and_device("prelu_weight", slopes, like);
    return ActivationKind::leaky;
  }
  if (activation.prelu_weight.has_value()) {
    fail("prelu_weight: found a tensor beside activation \"" + name + "\"; only \"prelu\" takes one");
  }
  if (name == "none") {
    return ActivationKind::none;
  }
  if (name == "relu") {
    return ActivationKind::relu;
  }
  if (name == "leaky_relu") {
    return ActivationKind::leaky;
  }
  fail("activation: found \"" + name + "\"; allowed are \"none\", \"relu\", \"leaky_relu\" and \"prelu\"");
}

void check_like_output(const char* argument, const Tensor& found, const IntList& size, const Tensor& like) {
  check_size(argument, found, size);
  check_dtype_and_device(argument, found, like);
}

int64_t check_logits(const Tensor& logits, const OptionalTensor& noise, double tau, int64_t ghosts,
                     const Tensor& like) {
  if (ghosts < 0) {
    fail("ghosts: found " + std::to_string(ghosts) + "; at least 0 is needed");
  }
  if (logits.dim() != 2 || (logits.size(0) != ghosts && logits.size(0) != 1)) {
    fail("logits: found shape " + size_text(logits) + "; [" + std::to_string(ghosts) +
         ", K] or [1, K] is needed");
  }
  if (!is_floating(logits)) {
    fail("logits: found dtype " + dtype_text(logits) + "; a floating-point dtype is needed");
  }
  if (logits.device() != like.device()) {
    fail("logits: found on " + device_text(logits) + "; the input's device " + device_text(like) +
         " is needed");
  }
  const int64_t candidates = logits.size(1);
  int64_t max_shift = 0;
  while ((2 * max_shift + 1) * (2 * max_shift + 1) < candidates) {
    ++max_shift;
  }
  if ((2 * max_shift + 1) * (2 * max_shift + 1) != candidates || max_shift > kMaxShift) {
    fail("logits: found " + std::to_string(candidates) +
         " candidates; (2 * max_shift + 1)^2 for max_shift 0 to 7 is allowed: 1, 9, 25, 49, 81, 121, 169, "
         "225");
  }
  if (noise.has_value()) {
    check_size("noise", *noise, {logits.size(0), candidates});
    check_dtype_and_device("noise", *noise, logits);
  }
  if (!std::isfinite(tau) || tau <= 0) {
    fail("tau: found " + std::to_string(tau) + "; a positive number is needed");
  }
  return max_shift;
}

}  // namespace ghostsr::ops
