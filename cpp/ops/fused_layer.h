#pragma once

#include "core/activation.h"
#include "core/channel_plan.h"
#include "core/fused/convolution.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// What follows the convolution of a layer.
struct LayerEpilogue {
  Activation activation;
  const OptionalTensor& residual;
  double residual_scale;
};

// A whole layer on one of our own paths, from checked arguments into a new channels_last map.
Tensor run_fused(const Tensor& input, const fused::Shape& shape, const Tensor& packed_weight,
                 const OptionalTensor& bias, const ChannelPlan& plan, const LayerEpilogue& epilogue);

}  // namespace ghostsr::ops
