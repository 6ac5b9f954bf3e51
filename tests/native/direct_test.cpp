// The fused convolutions in bfloat16.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "core/fused/convolution.h"
#include "fused_layer.h"

namespace ghostsr::fused {
namespace {

Shape shape_of(std::int64_t kernel, std::int64_t in, std::int64_t height, std::int64_t width,
               std::int64_t intrinsic, std::int64_t ghost, std::int64_t groups = 1) {
  const std::int64_t padding = kernel / 2;
  return Shape{2, in, height, width, intrinsic, ghost, padding, padding, groups, kernel};
}

LayerOptions in_bfloat16(LayerOptions options = {}) {
  options.bfloat16 = true;
  return options;
}

void expect_rounded_once(const Layer& layer) {
  // Of the eight bits of the output's mantissa; products and sums are exact to float32.
  constexpr double kTolerance = 1.0 / 512;
  const std::vector<double> expected = layer.expected();
  for (const Level& level : levels()) {
    EXPECT_LE(relative_error(layer.computed_in_bfloat16(1, serially, level.stages), expected), kTolerance)
        << "at level " << level.name;
  }
}

class DirectSizes : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(DirectSizes, AnyHeightAndWidthIsConvolved) {
  const auto [kernel, height, width] = GetParam();
  expect_rounded_once(Layer(shape_of(kernel, 9, height, width, 8, 8), in_bfloat16()));
}

INSTANTIATE_TEST_SUITE_P(Sizes, DirectSizes,
                         testing::Combine(testing::Values(1, 3), testing::Values(1, 2, 5),
                                          testing::Values(1, 15, 16, 17, 40, 50, 64, 150)));

class DirectChannels : public testing::TestWithParam<std::tuple<int, int, int, int>> {};

TEST_P(DirectChannels, AnyNumberOfChannelsIsConvolved) {
  const auto [kernel, in, intrinsic, ghost] = GetParam();
  expect_rounded_once(Layer(shape_of(kernel, in, 6, 19, intrinsic, ghost), in_bfloat16({.with_gain = true})));
}

INSTANTIATE_TEST_SUITE_P(Channels, DirectChannels,
                         testing::Combine(testing::Values(1, 3), testing::Values(1, 3, 10, 11, 32, 70),
                                          testing::Values(1, 8, 9, 16, 24, 40), testing::Values(0, 9)));

TEST(Direct, EachGroupReadsItsOwnChannels) {
  for (const std::int64_t kernel : {1, 3}) {
    for (const std::int64_t intrinsic : {1, 16, 20}) {
      expect_rounded_once(Layer(shape_of(kernel, 3 * 5, 5, 14, 3 * intrinsic, 13, 3), in_bfloat16()));
    }
  }
}

TEST(Direct, EachAxisIsPaddedByZeros) {
  for (const std::int64_t padding_y : {0, 1, 2}) {
    for (const std::int64_t padding_x : {0, 1, 2}) {
      expect_rounded_once(Layer(Shape{2, 5, 7, 18, 16, 0, padding_y, padding_x, 1, 3}, in_bfloat16()));
    }
  }
}

TEST(Direct, GhostsReadZeroOutsideOfTheMap) {
  for (const int shift : {1, 2, 7}) {
    expect_rounded_once(Layer(shape_of(3, 8, 21, 18, 16, 16), in_bfloat16({.max_shift = shift})));
  }
}

class DirectEpilogue : public testing::TestWithParam<std::tuple<bool, bool, ActivationKind>> {};

TEST_P(DirectEpilogue, OrderResidualAndActivationFollowTheDefinition) {
  const auto [with_order, with_residual, activation] = GetParam();
  const LayerOptions options{.with_order = with_order,
                             .with_residual = with_residual,
                             .residual_scale = 0.7F,
                             .activation = activation};
  for (const std::int64_t ghost : {0, 16}) {
    for (const std::int64_t intrinsic : {3, 32, 48}) {
      expect_rounded_once(Layer(shape_of(3, 8, 9, 21, intrinsic, ghost), in_bfloat16(options)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Epilogue, DirectEpilogue,
                         testing::Combine(testing::Bool(), testing::Bool(),
                                          testing::Values(ActivationKind::none, ActivationKind::relu,
                                                          ActivationKind::leaky)));

TEST(Direct, LargeMapThatIsWrittenPastTheCaches) {
  expect_rounded_once(Layer(shape_of(3, 2, 70, 65, 32, 0), in_bfloat16({.with_order = false})));
  expect_rounded_once(Layer(shape_of(1, 2, 70, 65, 16, 19), in_bfloat16({.with_residual = true})));
}

TEST(Direct, ChannelsAreShuffledIntoPixels) {
  for (const std::int64_t factor : {2, 3}) {
    for (const std::int64_t channels : {1, 3, 16}) {
      Shape shape = shape_of(3, 8, 6, 21, channels * factor * factor, 0);
      shape.shuffle = factor;
      expect_rounded_once(Layer(shape, in_bfloat16({.with_order = false})));
    }
  }
}

TEST(Direct, InputMayHaveGapsBetweenPixelsRowsAndPictures) {
  expect_rounded_once(
      Layer(shape_of(3, 5, 7, 18, 8, 8), in_bfloat16({.pixel_gap = 3, .row_gap = 5, .picture_gap = 7})));
}

TEST(Direct, SameBitsForAnyNumberOfWorkers) {
  const Layer layer(shape_of(3, 8, 45, 37, 16, 16), in_bfloat16({.max_shift = 2, .with_residual = true}));
  for (const Level& level : levels()) {
    const std::vector<float> alone = layer.computed_in_bfloat16(1, serially, level.stages);
    for (const int workers : {2, 3, 7}) {
      EXPECT_EQ(layer.computed_in_bfloat16(workers, in_threads, level.stages), alone)
          << "at level " << level.name;
    }
  }
}

TEST(Direct, NanReachesEveryOutputThatReadsItAndNoOtherRow) {
  for (const Level& level : levels()) {
    Layer layer(shape_of(3, 16, 9, 40, 8, 0), in_bfloat16());
    layer.input(0, 4, 20, 3) = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> output = layer.computed_in_bfloat16(1, serially, level.stages);
    for (std::int64_t y = 0; y < 9; ++y) {
      for (std::int64_t x = 0; x < 40; ++x) {
        const bool spoilt = std::isnan(output[static_cast<std::size_t>((y * 40 + x) * 8)]);
        const bool reads = std::abs(y - 4) <= 1 && std::abs(x - 20) <= 1;
        // The zeros that complete 48 inputs to 64 meet the pixel after the three.
        const bool may_read = std::abs(y - 4) <= 1 && x >= 18 && x <= 21;
        EXPECT_TRUE(reads ? spoilt : may_read || !spoilt) << level.name << " at " << y << ", " << x;
      }
    }
  }
}

}  // namespace
}  // namespace ghostsr::fused
