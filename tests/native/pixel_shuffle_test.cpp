// The fused convolution with a pixel shuffle of its output.
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "activations.h"
#include "core/fused/channel_groups.h"
#include "core/fused/convolution.h"
#include "fused_layer.h"

namespace ghostsr::fused {

namespace {

Shape shuffled_shape(std::int64_t factor, std::int64_t intrinsic, std::int64_t ghost, std::int64_t kernel) {
  return Shape{.batch = 2,
               .in_channels = 9,
               .height = 7,
               .width = 10,
               .intrinsic = intrinsic,
               .ghost = ghost,
               .padding_y = kernel / 2,
               .padding_x = kernel / 2,
               .kernel = kernel,
               .shuffle = factor};
}

class PixelShuffle : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(PixelShuffle, AnyNumberOfChannelsIsShuffledByAnyFactor) {
  const auto [kernel, factor, channels] = GetParam();
  expect_right_at_every_level(
      Layer(shuffled_shape(factor, channels * factor * factor, 0, kernel), {.with_order = false}));
}

// Ghosts fill the last pixels, or the intrinsic channels alone could not be shuffled.
TEST_P(PixelShuffle, GhostsAreShuffledWithTheirSources) {
  const auto [kernel, factor, channels] = GetParam();
  const std::int64_t outputs = std::int64_t{channels} * factor * factor;
  for (const std::int64_t ghosts : {outputs / 2, outputs / 2 + 1}) {
    expect_right_at_every_level(
        Layer(shuffled_shape(factor, outputs - ghosts, ghosts, kernel), {.with_gain = true}));
  }
}

TEST_P(PixelShuffle, EachChannelKeepsItsSlope) {
  const auto [kernel, factor, channels] = GetParam();
  expect_right_at_every_level(Layer(shuffled_shape(factor, channels * factor * factor, 0, kernel),
                                    {.with_order = false, .activation = ActivationKind::leaky}));
}

INSTANTIATE_TEST_SUITE_P(Factors, PixelShuffle,
                         testing::Combine(testing::Values(1, 3), testing::Values(2, 3, 4),
                                          testing::Values(1, 3, 8, 19)));

TEST(PixelShuffle, GroupsAreShuffledTogether) {
  for (const std::int64_t filters : {4, 32, 36, 6}) {
    Shape shape = shuffled_shape(2, 2 * filters, 0, 3);
    shape.groups = 2;
    shape.in_channels = 10;
    for (const bool with_order : {false, true}) {
      expect_right_at_every_level(Layer(shape, {.with_order = with_order}));
    }
  }
}

TEST(PixelShuffle, LargeMapThatIsWrittenPastTheCaches) {
  Shape shape = shuffled_shape(2, 76, 0, 3);
  shape.height = 61;
  shape.width = 63;
  for (const ActivationKind kind : kActivations) {
    expect_right_at_every_level(Layer(shape, {.residual_scale = 0.5F, .activation = kind}));
  }
}

TEST(PixelShuffle, SameBitsForAnyNumberOfWorkers) {
  Shape shape = shuffled_shape(3, 18, 18, 3);
  shape.height = 70;
  const Layer layer(shape, {.activation = ActivationKind::leaky});
  const std::vector<float> alone = layer.computed(1, serially);
  for (const int workers : {2, 5}) {
    EXPECT_EQ(layer.computed(workers, in_threads), alone) << workers << " threads";
  }
}

// Neighbours in the enlarged map are neighbours in the packed weight.
TEST(PixelShuffle, ChannelsOfOnePixelComeByOneLoad) {
  const ChannelPlan plan = make_channel_plan(64, 0, nullptr, nullptr, nullptr, nullptr, nullptr);
  for (const std::int64_t groups : {1, 2}) {
    for (const ChannelGroup& group :
         make_channel_groups(plan, {.out = 64 / groups, .in = 8, .groups = groups, .shuffle = 2})) {
      EXPECT_EQ(group.loads, 1) << groups << " groups";
    }
  }
}

TEST(PixelShuffle, WhatCannotBeShuffledIsRefusedByName) {
  const auto message = [](const Shape& shape, bool with_residual, std::int64_t gap) -> std::string {
    const Layer layer(Shape{.batch = 1, .in_channels = 9, .height = 7, .width = 10, .intrinsic = 12}, {});
    Arguments arguments = layer.arguments();
    const float residual = 0.0F;
    arguments.shape = shape;
    arguments.shape.batch = 0;
    arguments.residual = with_residual ? &residual : nullptr;
    arguments.output_stride_x = shape.row_channels() / shape.shuffle + gap;
    try {
      run(arguments, 1, Workspace(), serially);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  const Shape right = shuffled_shape(2, 12, 0, 3);
  EXPECT_EQ(message(right, false, 0), "accepted");
  EXPECT_NE(message(right, true, 0).find("takes no residual"), std::string::npos);
  EXPECT_NE(message(right, false, 1).find("between shuffled pixels is 4, but must be between 3 and 3"),
            std::string::npos);
  EXPECT_NE(message(shuffled_shape(3, 12, 0, 3), false, 0)
                .find("output channels is 12, but must be a multiple of the 9 pixels"),
            std::string::npos);
}

}  // namespace
}  // namespace ghostsr::fused
