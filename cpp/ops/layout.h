// Strides and memory formats of maps.
#pragma once

#include "core/geometry.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

inline Strides strides_of(const Tensor& map) {
  const auto strides = map.strides();
  return {strides[0], strides[1], strides[2], strides[3]};
}

inline Strides strides_of(const OptionalTensor& map) {
  return map.has_value() ? strides_of(*map) : Strides{};
}

inline Extent extent_of(const Tensor& map) { return {map.size(0), map.size(2), map.size(3)}; }

// Whether the map's strides say that the channels of a pixel lie together: torch's own rule, which also
// settles maps whose elements lie the same way in both orders.
bool prefers_channels_last(const Tensor& map);

// The map itself if its channels, for a channels_last layout, or else its columns lie side by side, as
// kernels of that layout read them; else a copy in that layout.
Tensor laid_out(const Tensor& map, bool channels_last);
OptionalTensor laid_out(const OptionalTensor& map, bool channels_last);

// The map itself or a copy that lies as a new map of that layout does.
Tensor densely_laid_out(const Tensor& map, bool channels_last);

// A map whose channels lie side by side as a matrix [N * H * W, C], without a copy if its pixels lie evenly.
Tensor matrix_of_pixels(const Tensor& map);

// An uninitialised map of the dtype and device of `like`.
Tensor empty_map(const IntList& size, bool channels_last, const Tensor& like);

Tensor empty_vector(const IntList& size, const Tensor& like);

}  // namespace ghostsr::ops
