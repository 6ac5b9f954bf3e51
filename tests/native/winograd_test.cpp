#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
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

Shape shape_of(std::int64_t batch, std::int64_t in, std::int64_t height, std::int64_t width,
               std::int64_t intrinsic, std::int64_t ghost, std::int64_t padding = 1) {
  return Shape{batch, in, height, width, intrinsic, ghost, padding, padding};
}

// Sizes of the map

class WinogradSizes : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(WinogradSizes, AnyHeightAndWidthIsConvolved) {
  const auto [height, width] = GetParam();
  expect_right_at_every_level(Layer(shape_of(1, 8, height, width, 8, 8), {}));
}

INSTANTIATE_TEST_SUITE_P(Sizes, WinogradSizes,
                         testing::Combine(testing::Values(1, 2, 3, 4, 5, 7, 8, 13),
                                          testing::Values(1, 2, 3, 4, 6, 9, 33)));

// Numbers of channels

class WinogradChannels : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(WinogradChannels, AnyNumberOfChannelsIsConvolved) {
  const auto [in, intrinsic, ghost] = GetParam();
  expect_right_at_every_level(Layer(shape_of(1, in, 6, 11, intrinsic, ghost), {.with_gain = true}));
}

INSTANTIATE_TEST_SUITE_P(Channels, WinogradChannels,
                         testing::Combine(testing::Values(1, 3, 8, 15, 24, 33, 70),
                                          testing::Values(1, 7, 8, 16, 25, 40, 70),
                                          testing::Values(0, 1, 9, 32)));

// Padding

class WinogradPadding : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(WinogradPadding, EachAxisIsPaddedByZeros) {
  const auto [padding_y, padding_x] = GetParam();
  Shape shape = shape_of(2, 12, 9, 14, 10, 6);
  shape.padding_y = padding_y;
  shape.padding_x = padding_x;
  expect_right_at_every_level(Layer(shape, {}));
}

INSTANTIATE_TEST_SUITE_P(Paddings, WinogradPadding,
                         testing::Combine(testing::Values(0, 1, 2), testing::Values(0, 1, 2)));

// Groups

class WinogradGroups : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(WinogradGroups, EachGroupReadsItsOwnChannels) {
  const auto [groups, in, intrinsic] = GetParam();
  Shape shape = shape_of(2, groups * in, 9, 14, groups * intrinsic, 13);
  shape.groups = groups;
  expect_right_at_every_level(Layer(shape, {.with_gain = true, .with_residual = true}));
}

INSTANTIATE_TEST_SUITE_P(Groups, WinogradGroups,
                         testing::Combine(testing::Values(2, 3, 4), testing::Values(1, 5, 8, 16),
                                          testing::Values(1, 3, 8, 20)));

// The epilogue

class WinogradShifts : public testing::TestWithParam<int> {};

TEST_P(WinogradShifts, GhostsReadZeroOutsideOfTheOutputMap) {
  expect_right_at_every_level(Layer(shape_of(1, 5, 19, 10, 9, 40), {.max_shift = GetParam()}));
}

TEST_P(WinogradShifts, MapSmallerThanTheShiftIsMostlyZero) {
  expect_right_at_every_level(Layer(shape_of(1, 5, 2, 3, 9, 40), {.max_shift = GetParam()}));
}

TEST_P(WinogradShifts, NarrowMapOfSeveralTileRowsAtATime) {
  expect_right_at_every_level(Layer(shape_of(1, 9, 70, 5, 8, 24), {.max_shift = GetParam()}));
}

// Neighbours then come from neighbours: by one vector load for each shift among eight.
TEST_P(WinogradShifts, GhostsMayFollowTheirSourcesInOrder) {
  for (const std::int64_t intrinsic : {16, 20}) {
    for (const unsigned seed : {1U, 2U}) {
      expect_right_at_every_level(Layer(shape_of(1, 5, 7, 9, intrinsic, 43), {.max_shift = GetParam(),
                                                                              .with_order = false,
                                                                              .sources_in_order = true,
                                                                              .with_gain = seed == 2,
                                                                              .seed = seed}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shifts, WinogradShifts, testing::Range(0, kMaxShift + 1));

class WinogradEpilogue : public testing::TestWithParam<std::tuple<bool, bool, bool, ActivationKind, bool>> {};

TEST_P(WinogradEpilogue, OrderGainResidualAndActivationFollowTheDefinition) {
  const auto [with_order, with_gain, with_residual, activation, with_bias] = GetParam();
  expect_right_at_every_level(
      Layer(shape_of(2, 6, 7, 9, 12, 11), {.with_order = with_order,
                                           .with_gain = with_gain,
                                           .with_bias = with_bias,
                                           .with_residual = with_residual,
                                           .residual_scale = with_residual ? 0.1F : 1.0F,
                                           .activation = activation}));
}

INSTANTIATE_TEST_SUITE_P(Options, WinogradEpilogue,
                         testing::Combine(testing::Bool(), testing::Bool(), testing::Bool(),
                                          testing::ValuesIn(kActivations), testing::Bool()));

TEST(Winograd, ScalesWithoutAResidualToo) {
  expect_right_at_every_level(Layer(shape_of(1, 6, 7, 9, 12, 4), {.residual_scale = 0.25F}));
}

TEST(Winograd, LargeMapThatIsWrittenPastTheCaches) {
  for (const ActivationKind kind : kActivations) {
    expect_right_at_every_level(
        Layer(shape_of(1, 4, 66, 70, 40, 41), {.with_residual = true, .activation = kind}));
  }
}

class WinogradSlopes : public testing::TestWithParam<int> {};

TEST_P(WinogradSlopes, EachOutputChannelHasItsOwn) {
  expect_right_at_every_level(
      Layer(shape_of(1, 8, 9, 21, GetParam(), GetParam() / 2), {.activation = ActivationKind::leaky}));
}

INSTANTIATE_TEST_SUITE_P(Channels, WinogradSlopes,
                         testing::Values(1, 2, 3, 5, 7, 8, 11, 16, 17, 24, 31, 32, 33, 64));

TEST(Winograd, ResidualMayBeTheOutput) {
  const Layer layer(shape_of(1, 8, 21, 17, 16, 16), {.with_residual = true});
  Arguments arguments = layer.arguments();
  std::vector<float> output(arguments.residual, arguments.residual + 21 * 17 * 32);
  Workspace workspace;
  arguments.residual = output.data();
  arguments.output = output.data();
  run(arguments, 1, workspace, serially);
  EXPECT_EQ(output, layer.computed());
}

// What lies between the pixels of a wider map stays as it is.
TEST(Winograd, OutputMayBeSomeChannelsOfAWiderMap) {
  for (const bool with_residual : {false, true}) {
    for (const ActivationKind kind : kActivations) {
      // The last is large enough to be written past the caches.
      for (const Shape& shape :
           {shape_of(2, 8, 21, 17, 16, 16), shape_of(1, 8, 9, 14, 11, 10), shape_of(1, 4, 66, 70, 40, 41)}) {
        const Layer layer(shape, {.with_residual = with_residual, .activation = kind});
        for (const Level& level : levels()) {
          const std::int64_t channels = shape.out_channels();
          const std::int64_t pixels = shape.batch * shape.out_height() * shape.out_width();
          const std::int64_t wider = channels + 7;
          std::vector<float> output(static_cast<std::size_t>(pixels * wider), -3.0F);
          Arguments arguments = layer.arguments();
          arguments.stages = level.stages;
          arguments.output = output.data() + 5;
          arguments.output_stride_x = wider;
          arguments.output_stride_y = shape.out_width() * wider;
          arguments.output_stride_n = shape.out_height() * arguments.output_stride_y;
          Workspace workspace;
          run(arguments, 2, workspace, in_threads);

          const std::vector<float> dense = layer.computed(level.stages);
          std::vector<float> expected(output.size(), -3.0F);
          for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
            std::copy_n(dense.begin() + pixel * channels, channels, expected.begin() + pixel * wider + 5);
          }
          EXPECT_EQ(output, expected) << level.name;
        }
      }
    }
  }
}

// The input's memory

TEST(Winograd, InputMayHaveGapsBetweenPixelsRowsAndPictures) {
  expect_right_at_every_level(
      Layer(shape_of(3, 11, 10, 13, 8, 8), {.pixel_gap = 3, .row_gap = 17, .picture_gap = 29}));
}

TEST(Winograd, EmptyBatchIsLeftAlone) {
  const Layer layer(shape_of(0, 8, 10, 10, 8, 8), {});
  EXPECT_TRUE(layer.computed(2, in_threads).empty());
}

// How neighbouring channels are fetched

// The loads for eight ghosts of these sources, each at its shift along x.
int loads_of(const std::vector<std::int64_t>& source, const std::vector<std::int64_t>& shift_x) {
  constexpr std::int64_t kIntrinsic = 16;
  std::vector<std::int64_t> shift;
  for (const std::int64_t dx : shift_x) {
    shift.insert(shift.end(), {0, dx});
  }
  const auto ghosts = static_cast<std::int64_t>(source.size());
  const ChannelPlan plan =
      make_channel_plan(kIntrinsic, ghosts, source.data(), shift.data(), nullptr, nullptr, nullptr);
  return make_channel_groups(plan, {.out = kIntrinsic, .in = 1}).back().loads;
}

TEST(WinogradLoads, NeighboursAtOneShiftComeByOne) {
  EXPECT_EQ(loads_of({8, 9, 10, 11, 12, 13, 14, 15}, {1, 1, 1, 1, 1, 1, 1, 1}), 1);
}

TEST(WinogradLoads, EveryShiftTakesOne) {
  EXPECT_EQ(loads_of({0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, -1, 0, 1, 2, -1, 0}), 4);
}

TEST(WinogradLoads, EverySourceOutOfLineTakesOne) {
  EXPECT_EQ(loads_of({0, 1, 2, 3, 12, 5, 6, 8}, {0, 0, 0, 0, 0, 0, 0, 0}), 3);
}

TEST(WinogradLoads, ThereAreNoneWhereOneWouldReachBeyondThePixel) {
  EXPECT_EQ(loads_of({0, 0, 2, 3, 4, 5, 6, 7}, {0, 0, 0, 0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(loads_of({15, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 0, 0, 0, 0, 0, 0}), 0);
}

TEST(WinogradLoads, FewerThanEightNeighboursComeByOne) { EXPECT_EQ(loads_of({4, 5, 6}, {1, 1, 1}), 1); }

// Precision

TEST(Winograd, ErrorAt256ChannelsIsThatOfRounding) {
  expect_right_at_every_level(Layer(shape_of(1, 256, 16, 16, 128, 128), {}));
}

// Against the definition, in double: component (u, v) is row u of G times the kernel times row v of G.
TEST(WinogradPacking, EveryLevelTransformsKernelsOfAnyStridesInAnyTasks) {
  constexpr double kRoot = 1.4142135623730951;
  constexpr double kTransform[6][3] = {{1, 0, 0},
                                       {-2.0 / 3, -kRoot / 3, -1.0 / 3},
                                       {-2.0 / 3, kRoot / 3, -1.0 / 3},
                                       {1.0 / 6, kRoot / 6, 1.0 / 3},
                                       {1.0 / 6, -kRoot / 6, 1.0 / 3},
                                       {0, 0, 1}};
  for (const WeightSize size : {WeightSize{10, 7}, WeightSize{16, 70, 2}, WeightSize{35, 130}}) {
    const std::int64_t step = size.in * 9 + 5;
    std::vector<float> values(static_cast<std::size_t>(size.groups * size.out * step));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(static_cast<float>(i));
    }
    // Channels of the input lie innermost, and rows from the last to the first.
    const Weight weight{values.data() + 6 * size.in, size, size.out * step, step, 1, -3 * size.in, size.in};
    for (const Level& level : levels()) {
      std::vector<float> packed(packed_size(size), -1.0F);
      std::vector<float> again(packed_size(size), 1.0F);
      pack(weight, packed.data(), serially, level.stages);
      pack(weight, again.data(), in_threads, level.stages);
      ASSERT_EQ(packed, again) << level.name;
      const std::int64_t padded = (size.out + 7) / 8 * 8;
      for (std::int64_t group = 0; group < size.groups; ++group) {
        for (std::int64_t out = 0; out < padded; ++out) {
          const std::int64_t panel = out / 16 * 16;
          const std::int64_t width = std::min<std::int64_t>(16, padded - panel);
          for (std::int64_t in = 0; in < size.in; ++in) {
            for (std::int64_t u = 0; u < 6; ++u) {
              for (std::int64_t v = 0; v < 6; ++v) {
                double expected = 0;
                for (std::int64_t tap = 0; tap < 9 && out < size.out; ++tap) {
                  expected += kTransform[u][tap / 3] * kTransform[v][tap % 3] *
                              static_cast<double>(
                                  weight.data[group * weight.stride_group + out * weight.stride_out + in +
                                              tap / 3 * weight.stride_y + tap % 3 * weight.stride_x]);
                }
                const float found = packed[static_cast<std::size_t>(
                    ((group * 36 + 6 * u + v) * padded + panel) * size.in + in * width + out - panel)];
                ASSERT_NEAR(found, expected, 1e-6 * std::abs(expected) + 1e-12)
                    << level.name << " " << out << " " << in << " " << u << " " << v;
              }
            }
          }
        }
      }
    }
  }
}

// y = conv(x, w) is linear in x; its transpose applied to g must satisfy <conv(x, w), g> = <x,
// conv_transposed(g, w)>.
TEST(Winograd, TransposedWeightGivesTheGradientOfTheInput) {
  constexpr std::int64_t kIn = 6;
  constexpr std::int64_t kOut = 9;
  constexpr std::int64_t kHeight = 11;
  constexpr std::int64_t kWidth = 7;
  const auto wave = [](std::size_t count, double frequency) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) {
      values[i] = static_cast<float>(std::sin(frequency * static_cast<double>(i * i % 1009)));
    }
    return values;
  };
  const auto weight = wave(kOut * kIn * 9, 0.7);
  const auto convolve = [&](const std::vector<float>& input, std::int64_t in, std::int64_t out,
                            std::int64_t height, std::int64_t width, std::int64_t padding,
                            const Weight& view) {
    std::vector<float> packed(packed_size({out, in}));
    pack(view, packed.data(), serially);
    const ChannelPlan channels = make_channel_plan(out, 0, nullptr, nullptr, nullptr, nullptr, nullptr);
    Arguments arguments;
    arguments.shape = Shape{1, in, height, width, out, 0, padding, padding};
    arguments.input = input.data();
    arguments.input_stride_y = width * in;
    arguments.input_stride_x = in;
    arguments.packed_weight = packed.data();
    arguments.channels = &channels;
    std::vector<float> output(
        static_cast<std::size_t>(arguments.shape.out_height() * arguments.shape.out_width() * out));
    Workspace workspace;
    arguments.output = output.data();
    arguments.output_stride_y = arguments.shape.out_width() * out;
    arguments.output_stride_x = out;
    run(arguments, 1, workspace, serially);
    return output;
  };
  const auto product = [](const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    }
    return sum;
  };

  for (const std::int64_t padding : {0, 1, 2}) {
    const std::int64_t out_height = kHeight + 2 * padding - 2;
    const std::int64_t out_width = kWidth + 2 * padding - 2;
    const auto x = wave(kHeight * kWidth * kIn, 0.3);
    const auto gradient = wave(static_cast<std::size_t>(out_height * out_width * kOut), 0.9);
    const Weight forward{weight.data(), {kOut, kIn}, kOut * kIn * 9, kIn * 9, 9, 3, 1};
    const Weight transposed{weight.data() + 8, {kIn, kOut}, kOut * kIn * 9, 9, kIn * 9, -3, -1};
    const auto y = convolve(x, kIn, kOut, kHeight, kWidth, padding, forward);
    const auto dx = convolve(gradient, kOut, kIn, out_height, out_width, 2 - padding, transposed);
    EXPECT_NEAR(product(y, gradient), product(x, dx), 1e-3) << "at padding " << padding;
  }
}

// Threads

class WinogradThreads : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(WinogradThreads, SameBitsForAnyNumberOfWorkers) {
  const auto [max_shift, height] = GetParam();
  const Layer layer(shape_of(2, 9, height, 22, 12, 13),
                    {.max_shift = max_shift, .with_residual = true, .activation = ActivationKind::relu});
  const std::vector<float> alone = layer.computed(1, serially);
  for (const int workers : {2, 3, 5, 16}) {
    EXPECT_EQ(layer.computed(workers, in_threads), alone) << workers << " threads";
    EXPECT_EQ(layer.computed(workers, serially), alone) << workers << " workers in one thread";
  }
}

INSTANTIATE_TEST_SUITE_P(Shifts, WinogradThreads,
                         testing::Combine(testing::Range(0, kMaxShift + 1), testing::Values(3, 31, 64, 101)));

TEST(Winograd, WorkspaceDoesNotGrowWithTheHeight) {
  const Layer low(shape_of(1, 16, 256, 64, 16, 16), {});
  const Layer high(shape_of(1, 16, 2560, 64, 16, 16), {});
  EXPECT_EQ(low.workspace_floats(2), high.workspace_floats(2));
}

// NaN

TEST(Winograd, NanReachesEveryOutputThatReadsIt) {
  Layer layer(shape_of(1, 8, 12, 12, 8, 0), {.with_order = false, .activation = ActivationKind::relu});
  layer.input(0, 5, 6, 3) = std::numeric_limits<float>::quiet_NaN();
  for (const Level& level : levels()) {
    const std::vector<float> output = layer.computed(level.stages);
    for (std::size_t y = 0; y < 12; ++y) {
      for (std::size_t x = 0; x < 12; ++x) {
        const bool reads = y >= 4 && y <= 6 && x >= 5 && x <= 7;
        // Tiles whose 6x6 patch holds the pixel may be NaN as a whole; this one is in the middle tile's patch
        // alone.
        const bool in_tile = y >= 4 && y < 8 && x >= 4 && x < 8;
        const bool is_nan = std::isnan(output[(y * 12 + x) * 8]);
        if (reads) {
          EXPECT_TRUE(is_nan) << level.name << " at " << y << ", " << x;
        } else if (!in_tile) {
          EXPECT_FALSE(is_nan) << level.name << " at " << y << ", " << x;
        }
      }
    }
  }
}

// The choice of the path

TEST(ShouldUseWinograd, OnTheLayersOfSuperResolutionNetworks) {
  EXPECT_TRUE(should_use_fused(shape_of(1, 64, 128, 128, 32, 32), true));
  EXPECT_TRUE(should_use_fused(shape_of(1, 256, 96, 96, 128, 128), true));
  EXPECT_TRUE(should_use_fused(shape_of(16, 64, 48, 48, 64, 0), true));
}

TEST(ShouldUseWinograd, NotOnThePictureItself) {
  EXPECT_FALSE(should_use_fused(shape_of(1, 3, 128, 128, 64, 0), true));
}

TEST(ShouldUseWinograd, NotOnMapsLowerOrNarrowerThanATile) {
  EXPECT_FALSE(should_use_fused(shape_of(1, 64, 3, 128, 32, 32), true));
  EXPECT_FALSE(should_use_fused(shape_of(1, 64, 128, 3, 32, 32), true));
}

TEST(ShouldUseWinograd, OnlyOnMapsThatAreWorthPackingTheWeightFor) {
  EXPECT_TRUE(should_use_fused(shape_of(1, 16, 4, 4, 16, 0), false));
  EXPECT_FALSE(should_use_fused(shape_of(1, 64, 8, 8, 32, 32), false));
  EXPECT_TRUE(should_use_fused(shape_of(2, 64, 8, 8, 32, 32), false));
  EXPECT_TRUE(should_use_fused(shape_of(1, 64, 12, 12, 32, 32), false));
  EXPECT_FALSE(should_use_fused(shape_of(1, 256, 24, 24, 256, 0), false));
  EXPECT_TRUE(should_use_fused(shape_of(1, 256, 32, 32, 256, 0), false));
}

TEST(ShouldUseWinograd, OnGroupsOfEightChannelsOrMore) {
  Shape shape = shape_of(1, 64, 96, 96, 32, 32);
  for (const std::int64_t groups : {4, 8}) {
    shape.groups = groups;
    EXPECT_TRUE(should_use_fused(shape, true)) << groups;
  }
  shape.groups = 16;
  EXPECT_FALSE(should_use_fused(shape, true));
}

TEST(ShouldUseWinograd, NotWhereLargeWeightsServeFewTiles) {
  EXPECT_FALSE(should_use_fused(shape_of(1, 256, 4, 4, 128, 128), true));
  EXPECT_FALSE(should_use_fused(shape_of(1, 256, 8, 8, 256, 0), true));
  EXPECT_TRUE(should_use_fused(shape_of(1, 256, 12, 12, 256, 0), true));
  EXPECT_TRUE(should_use_fused(shape_of(1, 64, 4, 4, 32, 32), true));
}

// Refusals

TEST(Winograd, SizesOutOfRangeAreRefusedByName) {
  const auto message = [](Shape shape) -> std::string {
    const ChannelPlan channels = make_channel_plan(4, 0, nullptr, nullptr, nullptr, nullptr, nullptr);
    Arguments arguments;
    arguments.shape = shape;
    arguments.channels = &channels;
    try {
      run(arguments, 1, Workspace(), serially);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(shape_of(0, 4, 5, 5, 4, 0)), "accepted");
  EXPECT_NE(message(shape_of(1, 4, 2, 5, 4, 0, 0)).find("height is 0"), std::string::npos);
  EXPECT_NE(message(shape_of(1, 4, 5, 2, 4, 0, 0)).find("width is 0"), std::string::npos);
  EXPECT_NE(message(shape_of(1, 4, 5, 5, 4, 0, 3)).find("padding along y is 3"), std::string::npos);
  EXPECT_NE(message(shape_of(1, 0, 5, 5, 4, 0)).find("input channels is 0"), std::string::npos);
  EXPECT_NE(message(shape_of(-1, 4, 5, 5, 4, 0)).find("batch is -1"), std::string::npos);
  Shape grouped = shape_of(1, 4, 5, 5, 4, 0);
  grouped.groups = 3;
  EXPECT_NE(message(grouped).find("input channels is 4, but must be a multiple of the 3 groups"),
            std::string::npos);
  grouped.groups = 0;
  EXPECT_NE(message(grouped).find("groups is 0"), std::string::npos);
  Shape even = shape_of(1, 4, 5, 5, 4, 0);
  even.kernel = 2;
  EXPECT_NE(message(even).find("kernel is 2, but must be 1 or 3"), std::string::npos);
  EXPECT_NE(message(shape_of(1, 4, 5, 5, 3, 0)).find("plan's intrinsic channels is 4"), std::string::npos);
  EXPECT_NE(message(shape_of(1, 4, 5, 5, 4, 1)).find("plan's output channels is 4"), std::string::npos);
}

TEST(Winograd, ShiftsBeyondTheLargestAreRefused) {
  const std::int64_t source[] = {0};
  const std::int64_t shift[] = {kMaxShift + 1, 0};
  const ChannelPlan channels = make_channel_plan(4, 1, source, shift, nullptr, nullptr, nullptr);
  Arguments arguments;
  arguments.shape = shape_of(1, 4, 5, 5, 4, 1);
  arguments.channels = &channels;
  EXPECT_THROW(run(arguments, 1, Workspace(), serially), std::invalid_argument);
}

}  // namespace
}  // namespace ghostsr::fused
