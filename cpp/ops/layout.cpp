#include "ops/layout.h"

#include <torch/csrc/stable/ops.h>

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

Tensor empty_map(const IntList& size, bool channels_last, const Tensor& like) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::empty(size, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

Tensor empty_vector(const IntList& size, const Tensor& like) {
  return torch::stable::empty(size, like.scalar_type(), std::nullopt, like.device());
}

}  // namespace ghostsr::ops
