#include "core/shift_concat.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "activations.h"
#include "core/channel_plan.h"
#include "core/half.h"
#include "core/simd/block_sizes.h"
#include "kernel_levels.h"

namespace ghostsr {
namespace {

// Values around a map that kernels must neither use nor change.
constexpr float kOutside = 1e30F;

using Backward = ShiftConcatBackwardParams<float>;

// Lends a kernel just the memory that it says it works in.
void backward_by_pixels(const ShiftKernels<float>& kernels, const Backward& params, int64_t begin,
                        int64_t end) {
  const int64_t outputs = params.reader_begin[params.intrinsic_channels];
  std::vector<float> workspace(backward_workspace(outputs, params.radius) + 1, kOutside);
  std::vector<int64_t> offsets(backward_offsets(outputs, params.radius) + 1, -1);
  kernels.backward_pixels(params, begin, end, workspace.data(), offsets.data());
  EXPECT_EQ(workspace.back(), kOutside);
  EXPECT_EQ(offsets.back(), -1);
}

void run_backward(const ShiftKernels<float>& kernels, bool channels_last, const Backward& params,
                  int64_t begin, int64_t end) {
  channels_last ? backward_by_pixels(kernels, params, begin, end) : kernels.backward_rows(params, begin, end);
}

// A map with a margin on every side of its memory.
class Map {
 public:
  Map(Extent extent, int64_t channels, bool channels_last, int64_t gap = 0)
      : extent_(extent), channels_(channels) {
    const auto [batch, height, width] = extent;
    strides = channels_last
                  ? Strides{height * width * (channels + gap), 1, width * (channels + gap), channels + gap}
                  : Strides{channels * height * (width + gap), height * (width + gap), width + gap, 1};
    values_.assign(batch * (channels_last ? strides.batch : channels * strides.channel) + 2 * kMargin,
                   kOutside);
  }

  float* data() { return values_.data() + kMargin; }
  float& at(int64_t n, int64_t c, int64_t y, int64_t x) {
    return data()[n * strides.batch + c * strides.channel + y * strides.y + x * strides.x];
  }
  // Zero outside.
  float read(int64_t n, int64_t c, int64_t y, int64_t x) {
    return y < 0 || x < 0 || y >= extent_.height || x >= extent_.width ? 0.0F : at(n, c, y, x);
  }

  template <typename Function>
  void for_each(const Function& function) {
    for (int64_t n = 0; n < extent_.batch; ++n) {
      for (int64_t c = 0; c < channels_; ++c) {
        for (int64_t y = 0; y < extent_.height; ++y) {
          for (int64_t x = 0; x < extent_.width; ++x) {
            function(n, c, y, x);
          }
        }
      }
    }
  }

  // Small integers, so that sums are exact in any order.
  void fill(std::mt19937& random) {
    for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
      at(n, c, y, x) = static_cast<float>(static_cast<int>(random() % 9) - 4);
    });
  }

  // The number of values that are not the map's own and were changed.
  int64_t changed_outside() {
    std::vector<float> before = values_;
    for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
      before[&at(n, c, y, x) - values_.data()] = kOutside;
    });
    return std::count_if(before.begin(), before.end(), [](float value) { return value != kOutside; });
  }

  Strides strides{};

 private:
  static constexpr int64_t kMargin = 4096;
  Extent extent_;
  int64_t channels_;
  std::vector<float> values_;
};

struct Shape {
  Extent extent;
  int64_t intrinsic;
  int64_t ghosts;
  int max_shift;
};

ChannelPlan random_plan(const Shape& shape, bool ordered, std::mt19937& random) {
  std::vector<int64_t> source(shape.ghosts);
  std::vector<int64_t> shift(2 * shape.ghosts);
  std::vector<double> gain(shape.ghosts);
  std::vector<double> bias(shape.ghosts);
  for (int64_t ghost = 0; ghost < shape.ghosts; ++ghost) {
    source[ghost] = random() % shape.intrinsic;
    shift[2 * ghost] = static_cast<int64_t>(random() % (2 * shape.max_shift + 1)) - shape.max_shift;
    shift[2 * ghost + 1] = static_cast<int64_t>(random() % (2 * shape.max_shift + 1)) - shape.max_shift;
    gain[ghost] = static_cast<double>(random() % 5) - 2;
    bias[ghost] = static_cast<double>(random() % 5) - 2;
  }
  std::vector<int64_t> order(shape.intrinsic + shape.ghosts);
  std::iota(order.begin(), order.end(), 0);
  if (ordered) {
    std::shuffle(order.begin(), order.end(), random);
  }
  return make_channel_plan(shape.intrinsic, shape.ghosts, source.data(), shift.data(), gain.data(),
                           bias.data(), order.data());
}

struct Mask {
  MaskSource source;
  ActivationKind kind;
  double scale;
};

constexpr Mask masks[] = {
    {MaskSource::none, ActivationKind::none, 0.5},       {MaskSource::output, ActivationKind::relu, 0.5},
    {MaskSource::output, ActivationKind::relu, -2.0},    {MaskSource::output, ActivationKind::leaky, 0.5},
    {MaskSource::intrinsic, ActivationKind::relu, 0.5},  {MaskSource::intrinsic, ActivationKind::relu, -2.0},
    {MaskSource::intrinsic, ActivationKind::leaky, 0.5}, {MaskSource::intrinsic, ActivationKind::leaky, -2.0},
};

struct Case {
  Shape shape;
  bool ordered;
  bool channels_last;
};

class ShiftConcatKernels : public testing::TestWithParam<Case> {
 protected:
  std::mt19937 random_{7};
};

TEST_P(ShiftConcatKernels, EqualTheFormulaAndStayInTheirMemory) {
  const auto [shape, ordered, channels_last] = GetParam();
  const int64_t channels = shape.intrinsic + shape.ghosts;
  const ChannelPlan plan = random_plan(shape, ordered, random_);
  Map intrinsic(shape.extent, shape.intrinsic, channels_last, 3);
  Map residual(shape.extent, channels, channels_last, 1);
  intrinsic.fill(random_);
  residual.fill(random_);
  const std::vector<double> slopes = test_slopes(channels);
  for (const KernelLevel& level : kernel_levels()) {
    for (const ActivationKind kind : kActivations) {
      for (const bool with_residual : {false, true}) {
        SCOPED_TRACE(std::string(level.name) + ", " + activation_name(kind) +
                     (with_residual ? ", residual" : ""));
        Map output(shape.extent, channels, channels_last, 2);
        const ShiftConcatParams<float> params{
            .extent = shape.extent,
            .output_channels = channels,
            .origins = plan.origins.data(),
            .radius = plan.radius,
            .intrinsic = intrinsic.data(),
            .intrinsic_strides = intrinsic.strides,
            .residual = with_residual ? residual.data() : nullptr,
            .residual_strides = residual.strides,
            .output = output.data(),
            .output_strides = output.strides,
            .residual_scale = 0.5,
            .activation = {kind, kind == ActivationKind::leaky ? slopes.data() : nullptr},
            .affine = plan.affine,
        };
        const int64_t rows = shape.extent.batch * shape.extent.height;
        const int64_t tasks = channels_last ? rows : rows * channels;
        // In two parts and backwards: tasks may run in any order.
        const ShiftKernels<float>& kernels = level.kernels->float32;
        const auto kernel = channels_last ? kernels.concat_pixels : kernels.concat_rows;
        kernel(params, tasks / 2, tasks);
        kernel(params, 0, tasks / 2);
        output.for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
          const ChannelOrigin& origin = plan.origins[c];
          const double ghost =
              origin.gain * intrinsic.read(n, origin.source, y + origin.dy, x + origin.dx) + origin.bias;
          const double value = 0.5 * ghost + (with_residual ? residual.at(n, c, y, x) : 0.0F);
          const double expected = activated(kind, slopes[c], value);
          ASSERT_EQ(output.at(n, c, y, x), expected) << n << " " << c << " " << y << " " << x;
        });
        EXPECT_EQ(output.changed_outside(), 0);
      }
    }
  }
}

TEST_P(ShiftConcatKernels, HaveTheGradientOfTheFormula) {
  const auto [shape, ordered, channels_last] = GetParam();
  const int64_t channels = shape.intrinsic + shape.ghosts;
  const ChannelPlan plan = random_plan(shape, ordered, random_);
  Map gradient(shape.extent, channels, channels_last, 1);
  Map output(shape.extent, channels, channels_last, 3);
  Map intrinsic(shape.extent, shape.intrinsic, channels_last, 2);
  gradient.fill(random_);
  output.fill(random_);
  intrinsic.fill(random_);
  const std::vector<double> slopes = test_slopes(channels);
  for (const KernelLevel& level : kernel_levels()) {
    for (const auto& [source, kind, scale] : masks) {
      SCOPED_TRACE(std::string(level.name) + ", mask source " + std::to_string(static_cast<int>(source)) +
                   ", " + activation_name(kind) + ", scale " + std::to_string(scale));
      Map result(shape.extent, shape.intrinsic, channels_last, 1);
      Map residual(shape.extent, channels, channels_last, 1);
      const bool keeps = channels_last && source != MaskSource::intrinsic;
      const ShiftConcatBackwardParams<float> params{
          .extent = shape.extent,
          .intrinsic_channels = shape.intrinsic,
          .origins = plan.origins.data(),
          .readers = plan.readers.data(),
          .reader_begin = plan.reader_begin.data(),
          .radius = plan.radius,
          .grad_output = gradient.data(),
          .grad_output_strides = gradient.strides,
          .activation = {kind, kind == ActivationKind::leaky ? slopes.data() : nullptr},
          .mask_source = source,
          .output = source == MaskSource::output ? output.data() : nullptr,
          .output_strides = output.strides,
          .intrinsic = source == MaskSource::intrinsic ? intrinsic.data() : nullptr,
          .intrinsic_strides = intrinsic.strides,
          .grad_intrinsic = result.data(),
          .grad_intrinsic_strides = result.strides,
          .residual_scale = scale,
          .grad_residual = keeps ? residual.data() : nullptr,
          .grad_residual_strides = residual.strides,
      };
      const int64_t rows = shape.extent.batch * shape.extent.height;
      const int64_t tasks = channels_last ? rows : rows * shape.intrinsic;
      run_backward(level.kernels->float32, channels_last, params, tasks / 2, tasks);
      run_backward(level.kernels->float32, channels_last, params, 0, tasks / 2);

      // Scattered, as the definition reads; the kernels gather.
      Map expected(shape.extent, shape.intrinsic, channels_last);
      expected.for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) { expected.at(n, c, y, x) = 0; });
      gradient.for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
        const ChannelOrigin& origin = plan.origins[c];
        const int64_t to_y = y + origin.dy;
        const int64_t to_x = x + origin.dx;
        if (to_y < 0 || to_x < 0 || to_y >= shape.extent.height || to_x >= shape.extent.width) {
          return;
        }
        const double seen = scale * (origin.gain * intrinsic.at(n, origin.source, to_y, to_x) + origin.bias);
        const double factor =
            derivative(kind, slopes[c], source == MaskSource::output ? output.at(n, c, y, x) : seen);
        expected.at(n, origin.source, to_y, to_x) +=
            static_cast<float>(factor * scale * origin.gain * gradient.at(n, c, y, x));
      });
      result.for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
        ASSERT_EQ(result.at(n, c, y, x), expected.at(n, c, y, x)) << n << " " << c << " " << y << " " << x;
      });
      EXPECT_EQ(result.changed_outside(), 0);
      residual.for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
        const double factor = derivative(kind, slopes[c], output.at(n, c, y, x));
        const double expected_residual = keeps ? factor * gradient.at(n, c, y, x) : kOutside;
        ASSERT_EQ(residual.at(n, c, y, x), expected_residual) << n << " " << c << " " << y << " " << x;
      });
      EXPECT_EQ(residual.changed_outside(), 0);
    }
  }
}

// Every element of a map of one value, forwards through an activation, and backwards from ones.
struct ThroughActivation {
  std::vector<float> outputs;
  std::vector<float> gradients;
};

ThroughActivation through(const ShiftKernels<float>& kernels, float value, ActivationKind kind, double slope,
                          bool channels_last, MaskSource source) {
  constexpr Shape kShape{{1, 2, 21}, 19, 0, 0};
  const ChannelPlan plan = make_channel_plan(19, 0, nullptr, nullptr, nullptr, nullptr, nullptr);
  const std::vector<double> slopes(19, slope);
  const Activation activation{kind, slopes.data()};
  Map map(kShape.extent, 19, channels_last);
  Map result(kShape.extent, 19, channels_last);
  map.for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) { map.at(n, c, y, x) = value; });
  ThroughActivation found;
  const int64_t tasks = channels_last ? 2 : 2 * 19;
  const ShiftConcatParams<float> params{
      .extent = kShape.extent,
      .output_channels = 19,
      .origins = plan.origins.data(),
      .radius = 0,
      .intrinsic = map.data(),
      .intrinsic_strides = map.strides,
      .residual = nullptr,
      .residual_strides = {},
      .output = result.data(),
      .output_strides = result.strides,
      .residual_scale = 1,
      .activation = activation,
      .affine = false,
  };
  (channels_last ? kernels.concat_pixels : kernels.concat_rows)(params, 0, tasks);
  result.for_each(
      [&](int64_t n, int64_t c, int64_t y, int64_t x) { found.outputs.push_back(result.at(n, c, y, x)); });
  Map ones(kShape.extent, 19, channels_last);
  ones.for_each([&](int64_t n, int64_t c, int64_t y, int64_t x) { ones.at(n, c, y, x) = 1; });
  const ShiftConcatBackwardParams<float> backward{
      .extent = kShape.extent,
      .intrinsic_channels = 19,
      .origins = plan.origins.data(),
      .readers = plan.readers.data(),
      .reader_begin = plan.reader_begin.data(),
      .radius = 0,
      .grad_output = ones.data(),
      .grad_output_strides = ones.strides,
      .activation = activation,
      .mask_source = source,
      .output = map.data(),
      .output_strides = map.strides,
      .intrinsic = map.data(),
      .intrinsic_strides = map.strides,
      .grad_intrinsic = result.data(),
      .grad_intrinsic_strides = result.strides,
      .residual_scale = 1,
      .grad_residual = nullptr,
      .grad_residual_strides = {},
  };
  run_backward(kernels, channels_last, backward, 0, tasks);
  result.for_each(
      [&](int64_t n, int64_t c, int64_t y, int64_t x) { found.gradients.push_back(result.at(n, c, y, x)); });
  return found;
}

// What torch's relu, leaky_relu and prelu do, wherever in a map the value lies.
TEST(ShiftConcatActivations, TakeNansZerosAndInfinitiesAsTorchDoes) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  struct Expected {
    float value;
    ActivationKind kind;
    float slope;
    float output;
    float gradient;
  };
  constexpr Expected kExpected[] = {
      {kNan, ActivationKind::relu, 0, kNan, 1},
      {kNan, ActivationKind::leaky, 0.25F, kNan, 0.25F},
      {-0.0F, ActivationKind::relu, 0, -0.0F, 0},
      {-0.0F, ActivationKind::leaky, 0.25F, -0.0F, 0.25F},
      {-0.0F, ActivationKind::leaky, -0.25F, 0.0F, -0.25F},
      {0.0F, ActivationKind::relu, 0, 0.0F, 0},
      {0.0F, ActivationKind::leaky, 0.25F, 0.0F, 0.25F},
      {-kInfinity, ActivationKind::relu, 0, 0.0F, 0},
      {-kInfinity, ActivationKind::leaky, 0.25F, -kInfinity, 0.25F},
      {-kInfinity, ActivationKind::leaky, 0, kNan, 0},
      {kInfinity, ActivationKind::leaky, 0, kInfinity, 1},
  };
  const auto same = [](float found, float expected) {
    return std::isnan(expected) ? std::isnan(found)
                                : found == expected && std::signbit(found) == std::signbit(expected);
  };
  for (const KernelLevel& level : kernel_levels()) {
    for (const bool channels_last : {false, true}) {
      for (const MaskSource source : {MaskSource::output, MaskSource::intrinsic}) {
        for (const Expected& expected : kExpected) {
          SCOPED_TRACE(std::string(level.name) + (channels_last ? ", channels_last, " : ", contiguous, ") +
                       activation_name(expected.kind) + " of " + std::to_string(expected.value) +
                       " at slope " + std::to_string(expected.slope));
          const ThroughActivation found = through(level.kernels->float32, expected.value, expected.kind,
                                                  expected.slope, channels_last, source);
          for (const float output : found.outputs) {
            ASSERT_TRUE(same(output, expected.output)) << output;
          }
          for (const float gradient : found.gradients) {
            ASSERT_EQ(gradient, expected.gradient);
          }
        }
      }
    }
  }
}

std::vector<Case> cases() {
  const std::vector<Shape> shapes{
      {{2, 5, 7}, 3, 4, 1},    {{1, 1, 1}, 8, 8, 1},  {{1, 4, 40}, 16, 16, 1}, {{1, 3, 2}, 5, 11, 7},
      {{1, 9, 17}, 8, 24, 7},  {{2, 1, 33}, 1, 9, 2}, {{2, 12, 1}, 9, 1, 3},   {{1, 2, 12}, 130, 150, 2},
      {{1, 3, 9}, 1, 400, 1},  {{1, 3, 9}, 70, 0, 0}, {{1, 3, 31}, 8, 8, 0},   {{2, 4, 150}, 17, 20, 1},
      {{1, 3, 128}, 16, 8, 3},
  };
  std::vector<Case> all;
  for (const Shape& shape : shapes) {
    for (const bool ordered : {false, true}) {
      for (const bool channels_last : {false, true}) {
        all.push_back({shape, ordered, channels_last});
      }
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Shapes, ShiftConcatKernels, testing::ValuesIn(cases()));

TEST(ChannelPlan, ResolvesEveryOutputAndItsReaders) {
  const std::vector<int64_t> source{1, 0};
  const std::vector<int64_t> shift{1, -2, 0, 3};
  const std::vector<double> gain{2.0, 3.0};
  const std::vector<int64_t> order{3, 0, 2, 1};

  const ChannelPlan plan =
      make_channel_plan(2, 2, source.data(), shift.data(), gain.data(), nullptr, order.data());

  EXPECT_TRUE(plan.affine);
  EXPECT_EQ(plan.radius, 3);
  EXPECT_EQ(plan.ghost_outputs, (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(plan.reader_begin, (std::vector<int64_t>{0, 2, 4}));
  EXPECT_EQ(plan.readers, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(plan.origins[2].source, 1);
  EXPECT_EQ(plan.origins[2].dy, 1);
  EXPECT_EQ(plan.origins[2].dx, -2);
  EXPECT_EQ(plan.origins[2].gain, 2.0);
  EXPECT_EQ(plan.origins[3].ghost, -1);
  EXPECT_EQ(plan.origins[3].gain, 1.0);
}

}  // namespace
}  // namespace ghostsr
