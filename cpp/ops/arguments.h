// The arguments that the operators share, as they come from the dispatcher.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ghostsr::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using IntList = std::vector<int64_t>;

// The text of a text argument.
struct Name {
  std::string text;
};

struct ConvolutionGeometry {
  IntList stride;
  IntList padding;
  IntList dilation;
  int64_t groups;
};

// How a layer ends, before it is checked.
struct ActivationArguments {
  const Name& name;
  double negative_slope;
  const OptionalTensor& prelu_weight;
};

// What an operator knows of the ghosts, before it is checked.
struct GhostTables {
  const Tensor& source;
  const Tensor* shift;  // null where logits take its place
  const OptionalTensor& gain;
  const OptionalTensor& ghost_bias;
  const OptionalTensor& order;
};

}  // namespace ghostsr::ops

// torch's own conversion to std::string leaks the string on every call.
template <>
struct torch::stable::detail::ToImpl<ghostsr::ops::Name> {
  static ghostsr::ops::Name call(StableIValue value, uint64_t /*extension_build_version*/,
                                 bool /*is_internal*/) {
    const auto handle = torch::stable::detail::to<StringHandle>(value);
    size_t length = 0;
    const char* data = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
    STABLE_TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &data));
    ghostsr::ops::Name name{std::string(data, length)};
    STABLE_TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
    return name;
  }
};
