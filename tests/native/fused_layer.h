// A random convolution layer, computed by the code under test and, in double precision, straight from its
// definition.
#pragma once

#include <cstdint>
#include <vector>

#include "core/fused/convolution.h"

namespace ghostsr::fused {

struct LayerOptions {
  int max_shift = 1;
  bool with_order = true;
  bool sources_in_order = false;  // ghosts follow the intrinsic channels, in place of random ones
  bool with_gain = false;
  bool with_bias = true;
  bool with_residual = false;
  float residual_scale = 1.0F;
  ActivationKind activation = ActivationKind::none;
  std::int64_t pixel_gap = 0;  // floats between a pixel's channels and the next pixel
  std::int64_t row_gap = 0;
  std::int64_t picture_gap = 0;
  bool bfloat16 =
      false;  // numbers of that dtype alone in the maps and the weight, for computed_in_bfloat16()
  unsigned seed = 1;
};

class Layer {
 public:
  Layer(const Shape& shape, const LayerOptions& options);

  // Both return [N, H', W', C_out], or [N, r H', r W', C_out / r^2] of a pixel shuffle by r.
  std::vector<double> expected() const;
  std::vector<float> computed(int workers, ParallelFor parallel, const Stages* stages = nullptr) const;
  std::vector<float> computed(const Stages* stages = nullptr) const;

  std::vector<float> computed_in_bfloat16(int workers, ParallelFor parallel,
                                          const Stages* stages = nullptr) const;

  // How much `run` asks for.
  std::size_t workspace_floats(int workers) const;

  float& input(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t channel);
  Arguments arguments() const;
  const Shape& shape() const { return shape_; }

 private:
  std::int64_t input_index(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t channel) const;
  template <class T>
  ArgumentsOf<T> common_arguments() const;
  std::vector<double> convolved() const;
  std::vector<double> shuffled(const std::vector<double>& map) const;

  Shape shape_;
  LayerOptions options_;
  std::int64_t stride_n_;
  std::int64_t stride_y_;
  std::int64_t stride_x_;
  std::vector<float> input_;
  std::vector<float> weight_;
  std::vector<float> packed_;
  std::vector<BFloat16> packed_bfloat16_;
  std::vector<float> bias_;
  std::vector<float> residual_;
  std::vector<double> slopes_;
  ChannelPlan channels_;
};

// Memory for one call of `run`, full of NaN.
class Workspace {
 public:
  float* operator()(std::size_t floats);
  std::size_t floats() const { return memory_.size(); }

 private:
  std::vector<float> memory_;
};

// Root of the mean squared difference over the root of the mean square expected.
double relative_error(const std::vector<float>& computed, const std::vector<double>& expected);

// The compiled kernels of every level that this machine has, and the 16-lane ones on any machine.
struct Level {
  const char* name;
  const Stages* stages;
};
std::vector<Level> levels();

// Expects the relative error to stay below 2e-6 at every level.
void expect_right_at_every_level(const Layer& layer);

// One call, in this thread.
void serially(std::int64_t count, FunctionRef<void(std::int64_t, std::int64_t)> body);

// A thread for each index.
void in_threads(std::int64_t count, FunctionRef<void(std::int64_t, std::int64_t)> body);

}  // namespace ghostsr::fused
