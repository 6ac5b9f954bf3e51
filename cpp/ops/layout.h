// Strides and memory formats of maps.
#pragma once

#include "core/geometry.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

inline Strides strides_of(const Tensor& map) {
  const auto strides = map.strides();
  return {strides[0], strides[1], strides[2], strides[3]};
}

inline Extent extent_of(const Tensor& map) { return {map.size(0), map.size(2), map.size(3)}; }

// Whether the map's strides say that the channels of a pixel lie together: torch's own rule, which also
// settles maps whose elements lie the same way in both orders.
bool prefers_channels_last(const Tensor& map);

// An uninitialised map of the dtype and device of `like`.
Tensor empty_map(const IntList& size, bool channels_last, const Tensor& like);

Tensor empty_vector(const IntList& size, const Tensor& like);

}  // namespace ghostsr::ops
