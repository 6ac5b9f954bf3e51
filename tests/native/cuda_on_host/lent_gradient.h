// What the kernels of gradients read, lent to them.
#pragma once

#include <random>
#include <vector>

#include "channel_plan.cuh"
#include "layer_case.h"
#include "shift_concat_backward.h"

namespace ghostsr::cuda_test {

// Makes the case one that the witness it returns can tell the ReLU's signs of.
inline ReluWitness draw_witness(std::mt19937_64& random, LayerCase& layer) {
  if (!layer.relu) {
    return ReluWitness::none;
  }
  if (random() % 2 == 0) {
    return ReluWitness::output;
  }
  layer.residual = false;
  // Rounding must not decide a sign.
  if (!layer.dyadic) {
    layer.gain.reset();
    layer.ghost_bias.reset();
  }
  return ReluWitness::intrinsic;
}

template <typename T>
class LentGradient {
 public:
  // Where `defined` is not set the tables are out of range, and passed() is empty.
  LentGradient(const LayerCase& layer, ReluWitness witness, bool defined = true)
      : witness_(witness),
        residual_scale_(layer.residual_scale),
        gradient_(filled_map<T>(layer.output_size(), layer.layout, layer.misalignment, layer.grad_output)),
        output_(filled_map<T>(layer.output_size(), layer.layout, layer.misalignment,
                              defined ? layer.expected_output() : layer.residual_map)),
        intrinsic_(filled_map<T>(layer.intrinsic_size(), layer.layout, layer.misalignment, layer.intrinsic)),
        gradient_loan_(gradient_.lend_for_reading()),
        output_loan_(output_.lend_for_reading()),
        intrinsic_loan_(intrinsic_.lend_for_reading()) {
    if (defined) {
      output_.each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
        const bool open = witness == ReluWitness::none || to_double(output_.at(n, c, y, x)) > 0;
        passed_.push_back(open ? to_double(gradient_.at(n, c, y, x)) * layer.residual_scale : 0);
      });
    }
  }

  cuda::OutputGradient<T> gradient() const {
    return {
        .data = gradient_.data(),
        .strides = gradient_.strides(),
        .witness = witness_,
        .output = witness_ == ReluWitness::output ? output_.data() : nullptr,
        .output_strides = witness_ == ReluWitness::output ? output_.strides() : Strides{},
        .intrinsic = intrinsic_.data(),
        .intrinsic_strides = intrinsic_.strides(),
        .residual_scale = static_cast<accumulator_t<T>>(residual_scale_),
    };
  }
  // dL/dV before the ReLU and with residual_scale, in the order of StridedMap::each.
  const std::vector<double>& passed() const { return passed_; }

 private:
  ReluWitness witness_;
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
