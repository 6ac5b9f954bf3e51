// The fused 1x1 convolution.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "activations.h"
#include "core/fused/convolution.h"
#include "fused_layer.h"

namespace ghostsr::fused {
namespace {

Shape shape_of(std::int64_t batch, std::int64_t in, std::int64_t height, std::int64_t width,
               std::int64_t intrinsic, std::int64_t ghost, std::int64_t groups = 1) {
  return Shape{batch, in, height, width, intrinsic, ghost, 0, 0, groups, 1};
}

class PointwiseSizes : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(PointwiseSizes, AnyHeightAndWidthIsConvolved) {
  const auto [height, width] = GetParam();
  expect_right_at_every_level(
      Layer(shape_of(2, 9, height, width, 8, 8), {.activation = ActivationKind::relu}));
}

INSTANTIATE_TEST_SUITE_P(Sizes, PointwiseSizes,
                         testing::Combine(testing::Values(1, 2, 3, 5, 13),
                                          testing::Values(1, 2, 3, 5, 6, 7, 13, 100, 500)));

class PointwiseChannels : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(PointwiseChannels, AnyNumberOfChannelsIsConvolved) {
  const auto [in, intrinsic, ghost] = GetParam();
  expect_right_at_every_level(Layer(shape_of(1, in, 6, 11, intrinsic, ghost), {.with_gain = true}));
}

INSTANTIATE_TEST_SUITE_P(Channels, PointwiseChannels,
                         testing::Combine(testing::Values(1, 2, 3, 8, 15, 33, 256),
                                          testing::Values(1, 7, 8, 16, 25, 40, 70),
                                          testing::Values(0, 1, 9, 32)));

class PointwiseGroups : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(PointwiseGroups, EachGroupReadsItsOwnChannels) {
  const auto [groups, in, intrinsic] = GetParam();
  expect_right_at_every_level(
      Layer(shape_of(2, groups * in, 5, 14, groups * intrinsic, 13, groups), {.with_residual = true}));
}

INSTANTIATE_TEST_SUITE_P(Groups, PointwiseGroups,
                         testing::Combine(testing::Values(2, 3, 4), testing::Values(1, 5, 16),
                                          testing::Values(1, 8, 20)));

class PointwiseShifts : public testing::TestWithParam<int> {};

TEST_P(PointwiseShifts, GhostsReadZeroOutsideOfTheMap) {
  expect_right_at_every_level(Layer(shape_of(1, 5, 19, 10, 9, 40), {.max_shift = GetParam()}));
}

TEST_P(PointwiseShifts, MapSmallerThanTheShiftIsMostlyZero) {
  expect_right_at_every_level(Layer(shape_of(1, 5, 2, 3, 9, 40), {.max_shift = GetParam()}));
}

INSTANTIATE_TEST_SUITE_P(Shifts, PointwiseShifts, testing::Range(0, kMaxShift + 1));

class PointwiseEpilogue : public testing::TestWithParam<std::tuple<bool, bool, bool, ActivationKind, bool>> {
};

TEST_P(PointwiseEpilogue, OrderGainResidualAndActivationFollowTheDefinition) {
  const auto [with_order, with_gain, with_residual, activation, with_bias] = GetParam();
  expect_right_at_every_level(
      Layer(shape_of(2, 6, 7, 9, 12, 11), {.with_order = with_order,
                                           .with_gain = with_gain,
                                           .with_bias = with_bias,
                                           .with_residual = with_residual,
                                           .residual_scale = with_residual ? 0.1F : 1.0F,
                                           .activation = activation}));
}

INSTANTIATE_TEST_SUITE_P(Options, PointwiseEpilogue,
                         testing::Combine(testing::Bool(), testing::Bool(), testing::Bool(),
                                          testing::ValuesIn(kActivations), testing::Bool()));

TEST(Pointwise, InputMayHaveGapsBetweenPixelsRowsAndPictures) {
  expect_right_at_every_level(
      Layer(shape_of(3, 11, 10, 13, 8, 8), {.pixel_gap = 3, .row_gap = 17, .picture_gap = 29}));
}

TEST(Pointwise, EmptyBatchIsLeftAlone) {
  const Layer layer(shape_of(0, 8, 10, 10, 8, 8), {});
  EXPECT_TRUE(layer.computed(2, in_threads).empty());
}

class PointwiseThreads : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(PointwiseThreads, SameBitsForAnyNumberOfWorkers) {
  const auto [max_shift, height] = GetParam();
  const Layer layer(shape_of(2, 9, height, 22, 12, 13),
                    {.max_shift = max_shift, .with_residual = true, .activation = ActivationKind::relu});
  const std::vector<float> alone = layer.computed(1, serially);
  for (const int workers : {2, 3, 5, 16}) {
    EXPECT_EQ(layer.computed(workers, in_threads), alone) << workers << " threads";
    EXPECT_EQ(layer.computed(workers, serially), alone) << workers << " workers in one thread";
  }
}

INSTANTIATE_TEST_SUITE_P(Shifts, PointwiseThreads,
                         testing::Combine(testing::Values(0, 1, kMaxShift), testing::Values(3, 31, 101)));

TEST(Pointwise, WorkspaceDoesNotGrowWithTheHeight) {
  const Layer low(shape_of(1, 16, 256, 64, 16, 16), {});
  const Layer high(shape_of(1, 16, 2560, 64, 16, 16), {});
  EXPECT_EQ(low.workspace_floats(2), high.workspace_floats(2));
}

TEST(Pointwise, NanReachesItsOwnPixelAlone) {
  Layer layer(shape_of(1, 9, 12, 12, 9, 0), {.with_order = false, .activation = ActivationKind::relu});
  layer.input(0, 5, 6, 3) = std::numeric_limits<float>::quiet_NaN();
  for (const Level& level : levels()) {
    const std::vector<float> output = layer.computed(level.stages);
    for (std::size_t index = 0; index < output.size(); ++index) {
      EXPECT_EQ(std::isnan(output[index]), index / 9 == 5 * 12 + 6) << level.name << " at " << index;
    }
  }
}

TEST(ShouldUseFused, OnTheFusionsOfCascades) {
  EXPECT_TRUE(should_use_fused(shape_of(1, 256, 96, 96, 64, 0), true));
  EXPECT_TRUE(should_use_fused(shape_of(1, 64, 96, 96, 32, 32), true));
}

TEST(ShouldUseFused, NotWherePaddingMakesMostOfTheOutputs) {
  EXPECT_FALSE(should_use_fused(shape_of(1, 64, 96, 96, 2, 0), true));
  EXPECT_FALSE(should_use_fused(shape_of(1, 64, 96, 96, 64, 0, 64), true));
}

TEST(ShouldUseFused, NotWhereLargeWeightsServeFewPixels) {
  EXPECT_FALSE(should_use_fused(shape_of(1, 512, 3, 3, 512, 0), true));
  EXPECT_TRUE(should_use_fused(shape_of(1, 512, 24, 24, 512, 0), true));
}

TEST(Pointwise, PaddingIsRefused) {
  const ChannelPlan channels = make_channel_plan(4, 0, nullptr, nullptr, nullptr, nullptr, nullptr);
  Arguments arguments;
  arguments.shape = shape_of(1, 4, 5, 5, 4, 0);
  arguments.channels = &channels;
  arguments.shape.padding_x = 1;
  EXPECT_THROW(run(arguments, 1, Workspace(), serially), std::invalid_argument);
}

TEST(ShouldUsePointwise, WhereThePixelsAreWorthThePacking) {
  EXPECT_TRUE(should_use_fused(shape_of(1, 64, 4, 4, 64, 0), false));
  EXPECT_FALSE(should_use_fused(shape_of(1, 256, 12, 12, 256, 0), false));
  EXPECT_TRUE(should_use_fused(shape_of(1, 256, 16, 16, 256, 0), false));
}

}  // namespace
}  // namespace ghostsr::fused
