#pragma once

#include "core/channel_plan.h"
#include "core/winograd/winograd.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// What follows the convolution of a layer.
struct LayerEpilogue {
  bool relu;
  const OptionalTensor& residual;
  double residual_scale;
};

// A whole layer on the Winograd path, from checked arguments into a new channels_last map.
Tensor run_winograd(const Tensor& input, const winograd::Shape& shape, const Tensor& packed_weight,
                    const OptionalTensor& bias, const ChannelPlan& plan, const LayerEpilogue& epilogue);

}  // namespace ghostsr::ops
