#pragma once

#include "core/activation.h"
#include "core/channel_plan.h"
#include "core/fused/convolution.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// A whole layer on one of our own paths, from checked arguments into a new channels_last map.
struct FusedLayer {
  fused::Shape shape;
  const Tensor& packed_weight;
  const OptionalTensor& bias;
  const ChannelPlan& channels;
  Activation activation;
  const OptionalTensor& residual;
  double residual_scale;
};
Tensor run_fused(const Tensor& input, const FusedLayer& layer);

}  // namespace ghostsr::ops
