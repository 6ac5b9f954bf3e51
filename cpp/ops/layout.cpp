#include "ops/layout.h"

#include <torch/csrc/stable/ops.h>

#include <array>
#include <initializer_list>

namespace ghostsr::ops {

bool prefers_channels_last(const Tensor& map) {
  if (map.stride(1) == 0) {
    return false;
  }
  int64_t least = 0;
  for (const int64_t axis : std::initializer_list<int64_t>{1, 3, 2, 0}) {
    if (map.size(axis) == 0 || map.stride(axis) < least || (axis == 0 && least == map.stride(1))) {
      return false;
    }
    least = map.stride(axis) * (map.size(axis) > 1 ? map.size(axis) : 1);
  }
  return true;
}

namespace {

Tensor copy_in_layout(const Tensor& map, bool channels_last) {
  Tensor copy = empty_map({map.size(0), map.size(1), map.size(2), map.size(3)}, channels_last, map);
  torch::stable::copy_(copy, map);
  return copy;
}

}  // namespace

Tensor laid_out(const Tensor& map, bool channels_last) {
  const int64_t innermost = channels_last ? 1 : 3;
  return map.stride(innermost) == 1 || map.size(innermost) == 1 ? map : copy_in_layout(map, channels_last);
}

OptionalTensor laid_out(const OptionalTensor& map, bool channels_last) {
  return map.has_value() ? OptionalTensor(laid_out(*map, channels_last)) : map;
}

Tensor densely_laid_out(const Tensor& map, bool channels_last) {
  if (prefers_channels_last(map) != channels_last) {
    return copy_in_layout(map, channels_last);
  }
  int64_t expected = 1;
  const std::array<int64_t, 4> order =
      channels_last ? std::array<int64_t, 4>{1, 3, 2, 0} : std::array<int64_t, 4>{3, 2, 1, 0};
  for (const int64_t axis : order) {
    if (map.size(axis) > 1 && map.stride(axis) != expected) {
      return copy_in_layout(map, channels_last);
    }
    expected *= map.size(axis);
  }
  return map;
}

Tensor matrix_of_pixels(const Tensor& map) {
  return torch::stable::flatten(torch::stable::transpose(torch::stable::transpose(map, 1, 2), 2, 3), 0, 2);
}

Tensor empty_map(const IntList& size, bool channels_last, const Tensor& like) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::empty(size, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

Tensor empty_vector(const IntList& size, const Tensor& like) {
  return torch::stable::empty(size, like.scalar_type(), std::nullopt, like.device());
}

}  // namespace ghostsr::ops
