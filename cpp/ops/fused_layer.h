#pragma once

#include "core/activation.h"
#include "core/channel_plan.h"
#include "core/fused/convolution.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// A whole layer on one of our own paths, from checked arguments.
struct FusedLayer {
  fused::Shape shape;
  const Tensor& packed_weight;
  const OptionalTensor& bias;
  const ChannelPlan& channels;
  const fused::ChannelGroup* groups;  // of the plan, or null to make them in the call
  Activation activation;
  const OptionalTensor& residual;
  double residual_scale;
};

// Into a new channels_last map.
Tensor run_fused(const Tensor& input, const FusedLayer& layer);

// Into a map whose channels lie side by side.
void run_fused(const Tensor& input, const FusedLayer& layer, Tensor& output);

}  // namespace ghostsr::ops
