// What the kernels of gradients read, lent to them.
#pragma once

#include <random>
#include <vector>

#include "../activations.h"
#include "channel_plan.cuh"
#include "layer_case.h"
#include "shift_concat_backward.h"

namespace ghostsr::cuda_test {

// Makes the case one that the map it returns can tell the signs of that the activation saw.
inline MaskSource draw_mask_source(std::mt19937_64& random, LayerCase& layer) {
  if (layer.activation == ActivationKind::none) {
    return MaskSource::none;
  }
  if (random() % 2 == 0) {
    return MaskSource::output;
  }
  layer.residual = false;
  // Rounding must not decide a sign.
  if (!layer.dyadic) {
    layer.gain.reset();
    layer.ghost_bias.reset();
  }
  return MaskSource::intrinsic;
}

template <typename T>
class LentGradient {
 public:
  // Where `defined` is not set the tables are out of range, and passed() is empty.
  LentGradient(const LayerCase& layer, MaskSource mask_source, bool defined = true)
      : activation_(layer.activation),
        mask_source_(mask_source),
        residual_scale_(layer.residual_scale),
        gradient_(filled_map<T>(layer.output_size(), layer.layout, layer.misalignment, layer.grad_output)),
        output_(filled_map<T>(layer.output_size(), layer.layout, layer.misalignment,
                              defined ? seen_by_activation(layer) : layer.residual_map)),
        intrinsic_(filled_map<T>(layer.intrinsic_size(), layer.layout, layer.misalignment, layer.intrinsic)),
        gradient_loan_(gradient_.lend_for_reading()),
        output_loan_(output_.lend_for_reading()),
        intrinsic_loan_(intrinsic_.lend_for_reading()) {
    if (defined) {
      output_.each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
        passed_.push_back(derivative(layer.activation, layer.slope(c), to_double(output_.at(n, c, y, x))) *
                          to_double(gradient_.at(n, c, y, x)) * layer.residual_scale);
      });
    }
  }

  cuda::OutputGradient<T> gradient() const {
    return {
        .data = gradient_.data(),
        .strides = gradient_.strides(),
        .activation = activation_,
        .mask_source = mask_source_,
        .output = mask_source_ == MaskSource::output ? output_.data() : nullptr,
        .output_strides = mask_source_ == MaskSource::output ? output_.strides() : Strides{},
        .intrinsic = intrinsic_.data(),
        .intrinsic_strides = intrinsic_.strides(),
        .residual_scale = static_cast<accumulator_t<T>>(residual_scale_),
    };
  }
  // dL/dV before the activation and with residual_scale, in the order of StridedMap::each.
  const std::vector<double>& passed() const { return passed_; }

 private:
  // Slopes of either sign hide in the output what the activation saw.
  static std::vector<double> seen_by_activation(LayerCase layer) {
    layer.activation = layer.activation == ActivationKind::leaky ? ActivationKind::none : layer.activation;
    return layer.expected_output();
  }

  ActivationKind activation_;
  MaskSource mask_source_;
  double residual_scale_;
  StridedMap<T> gradient_;
  StridedMap<T> output_;
  StridedMap<T> intrinsic_;
  host_cuda::Loan gradient_loan_;
  host_cuda::Loan output_loan_;
  host_cuda::Loan intrinsic_loan_;
  std::vector<double> passed_;
};

template <typename T>
class LentPlan {
 public:
  using A = accumulator_t<T>;

  LentPlan(const LayerCase& layer, bool wide)
      : memory_(cuda::channel_plan_bytes<A>(layer.intrinsic_channels, layer.ghosts) / sizeof(double) + 1),
        view_(cuda::channel_plan_view<A>(memory_.data(), layer.intrinsic_channels, layer.ghosts)),
        loan_(memory_.data(), memory_.size() * sizeof(double), false) {
    const LentTables<T> tables(layer, wide);
    cuda::launch_channel_plan(tables.tables(), view_, nullptr);
  }

  const cuda::ChannelPlanView<A>& view() const { return view_; }

 private:
  std::vector<double> memory_;
  cuda::ChannelPlanView<A> view_;
  host_cuda::Loan loan_;
};

}  // namespace ghostsr::cuda_test
