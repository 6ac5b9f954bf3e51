#include "shift_concat.cuh"

#include <gtest/gtest.h>

#include "checks.h"
#include "layer_case.h"

namespace ghostsr::cuda_test {
namespace {

using cuda::ShiftConcatPath;

template <typename T>
struct Forward {
  StridedMap<T> intrinsic;
  StridedMap<T> residual;
  StridedMap<T> output;

  explicit Forward(const LayerCase& layer)
      : intrinsic(filled_map<T>(layer.intrinsic_size(), layer.layout, layer.misalignment, layer.intrinsic)),
        residual(
            filled_map<T>(layer.output_size(), layer.output_layout, layer.misalignment, layer.residual_map)),
        output(layer.output_size(), layer.output_layout, layer.misalignment) {}

  cuda::ShiftConcatArguments<T> arguments(const LayerCase& layer, const LentTables<T>& tables) {
    return {
        .extent = intrinsic.extent(),
        .tables = tables.tables(),
        .intrinsic = intrinsic.data(),
        .intrinsic_strides = intrinsic.strides(),
        .convolution_bias = tables.convolution_bias(),
        .residual = layer.residual ? residual.data() : nullptr,
        .residual_strides = residual.strides(),
        .output = output.data(),
        .output_strides = output.strides(),
        .residual_scale = static_cast<accumulator_t<T>>(layer.residual_scale),
    };
  }
};

// The same layer by the CPU's kernel, which finds the convolution's bias added.
template <typename T>
StridedMap<T> by_cpu(LayerCase layer) {
  for (size_t index = 0; index < layer.intrinsic.size() && !layer.convolution_bias.empty(); ++index) {
    const auto plane = static_cast<int64_t>(index) / (layer.height * layer.width);
    layer.intrinsic[index] += layer.convolution_bias[plane % layer.intrinsic_channels];
  }
  Forward<T> forward(layer);
  StridedMap<T> output(layer.output_size(), layer.output_layout);
  const ChannelPlan plan = layer.plan();
  const ShiftConcatParams<T> params{
      .extent = forward.intrinsic.extent(),
      .output_channels = layer.channels(),
      .origins = plan.origins.data(),
      .radius = plan.radius,
      .intrinsic = forward.intrinsic.data(),
      .intrinsic_strides = forward.intrinsic.strides(),
      .residual = layer.residual ? forward.residual.data() : nullptr,
      .residual_strides = forward.residual.strides(),
      .output = output.data(),
      .output_strides = output.strides(),
      .residual_scale = layer.residual_scale,
      .activation = layer.cpu_activation(),
      .affine = plan.affine,
  };
  shift_concat(params, 0, shift_concat_tasks(params));
  return output;
}

template <typename T>
void expect_forward(const LayerCase& layer, ShiftConcatPath path, bool wide_tables) {
  Forward<T> forward(layer);
  const LentTables<T> tables(layer, wide_tables);
  const auto intrinsic_loan = forward.intrinsic.lend_for_reading();
  const auto residual_loan = forward.residual.lend_for_reading();
  const auto output_loan = forward.output.lend_for_writing();
  cuda::launch_shift_concat(forward.arguments(layer, tables), path, nullptr);
  expect_each_element_written_once(forward.output, output_loan);
  const double tolerance = layer.dyadic || layer.only_moves() ? 0 : relative_tolerance<accumulator_t<T>>();
  expect_map(forward.output, layer.expected_output(), tolerance);
  expect_same_maps(forward.output, by_cpu<T>(layer), tolerance);
}

template <typename T>
std::vector<ShiftConcatPath> allowed_paths(const LayerCase& layer) {
  Forward<T> forward(layer);
  const LentTables<T> tables(layer, true);
  const auto arguments = forward.arguments(layer, tables);
  std::vector<ShiftConcatPath> paths{ShiftConcatPath::elements};
  if (cuda::can_take_rows(arguments)) {
    paths.push_back(ShiftConcatPath::rows);
  }
  if (cuda::can_take_pixels(arguments)) {
    paths.push_back(ShiftConcatPath::pixels);
  }
  return paths;
}

template <typename T>
class ShiftConcatOnHost : public testing::Test {};
TYPED_TEST_SUITE(ShiftConcatOnHost, StorageTypes, StorageTypeNames);

TYPED_TEST(ShiftConcatOnHost, EqualsDefinitionAndCpuOnEveryPathOfRandomLayers) {
  std::mt19937_64 random(1);
  std::array<int, 3> cases{};
  for (int index = 0; index < random_cases(250); ++index) {
    LayerCase layer = random_case(random, {});
    host_cuda::seed_thread_order(random());
    // Two-byte maps hold the sum with a bias exactly only where the numbers are dyadic.
    if (layer.dyadic && index % 3 == 0) {
      layer.convolution_bias.resize(layer.intrinsic_channels);
      for (double& bias : layer.convolution_bias) {
        bias = static_cast<double>(static_cast<int>(random() % 33)) / 8 - 2;
      }
    }
    SCOPED_TRACE(testing::Message() << "case " << index);
    for (const ShiftConcatPath path : allowed_paths<TypeParam>(layer)) {
      SCOPED_TRACE(testing::Message() << "path " << static_cast<int>(path));
      ASSERT_NO_FATAL_FAILURE(expect_forward<TypeParam>(layer, path, index % 2 == 0));
      ++cases[static_cast<int>(path)];
    }
  }
  for (const int count : cases) {
    EXPECT_GT(count, random_cases(250) / 20) << "a path is hardly tested";
  }
}

TYPED_TEST(ShiftConcatOnHost, EqualsDefinitionOnChannelsLastMapsOfManyChannels) {
  std::mt19937_64 random(7);
  for (int index = 0; index < random_cases(50); ++index) {
    LayerCase layer = random_case(
        random, {.most_channels = index % 5 == 0 ? 400 : 160, .most_pixels = 400, .most_shift = 7});
    host_cuda::seed_thread_order(random());
    if (layer.channels() % 8 != 0) {
      continue;
    }
    layer.layout = layer.output_layout = index % 2 == 0 ? Layout::channels_last : Layout::spaced_pixels;
    layer.misalignment = 0;
    SCOPED_TRACE(testing::Message() << "case " << index);
    ASSERT_NO_FATAL_FAILURE(expect_forward<TypeParam>(layer, ShiftConcatPath::pixels, index % 2 == 0));
  }
}

TYPED_TEST(ShiftConcatOnHost, TakesMoreChannelsThanABlockKeeps) {
  std::mt19937_64 random(2);
  LayerCase layer = random_case(random, {.most_channels = 1200, .most_pixels = 6, .most_shift = 1});
  while (layer.channels() < 700 || layer.channels() % 8 != 0 || layer.layout != Layout::channels_last ||
         layer.output_layout != Layout::channels_last) {
    layer = random_case(random, {.most_channels = 1200, .most_pixels = 6, .most_shift = 1});
  }
  layer.misalignment = 0;
  for (const ShiftConcatPath path : allowed_paths<TypeParam>(layer)) {
    SCOPED_TRACE(testing::Message() << "path " << static_cast<int>(path));
    ASSERT_NO_FATAL_FAILURE(expect_forward<TypeParam>(layer, path, true));
  }
  EXPECT_EQ(allowed_paths<TypeParam>(layer).back(), ShiftConcatPath::pixels);
}

TYPED_TEST(ShiftConcatOnHost, BringsTableEntriesOutOfRangeToTheNearestAllowed) {
  std::mt19937_64 random(3);
  LayerCase layer = random_case(random, {});
  while (layer.ghosts < 3 || layer.order) {
    layer = random_case(random, {});
  }
  LayerCase clamped = layer;
  layer.source[0] = 1000;
  clamped.source[0] = layer.intrinsic_channels - 1;
  layer.source[1] = -5;
  clamped.source[1] = 0;
  layer.shift[4] = int64_t{1} << 40;
  clamped.shift[4] = 7;
  layer.shift[5] = -100;
  clamped.shift[5] = -7;
  for (const ShiftConcatPath path : allowed_paths<TypeParam>(layer)) {
    Forward<TypeParam> forward(layer);
    const LentTables<TypeParam> tables(layer, true);
    const auto intrinsic_loan = forward.intrinsic.lend_for_reading();
    const auto residual_loan = forward.residual.lend_for_reading();
    const auto output_loan = forward.output.lend_for_writing();
    cuda::launch_shift_concat(forward.arguments(layer, tables), path, nullptr);
    expect_map(forward.output, clamped.expected_output(), relative_tolerance<accumulator_t<TypeParam>>());
  }
}

TYPED_TEST(ShiftConcatOnHost, KeepsNansThroughTheRelu) {
  LayerCase layer;
  layer.width = 16;
  layer.height = 16;
  layer.activation = ActivationKind::relu;
  layer.intrinsic.assign(256, std::numeric_limits<double>::quiet_NaN());
  layer.residual_map.assign(256, 0);
  Forward<TypeParam> forward(layer);
  const LentTables<TypeParam> tables(layer, true);
  const auto intrinsic_loan = forward.intrinsic.lend_for_reading();
  const auto output_loan = forward.output.lend_for_writing();
  for (const ShiftConcatPath path : {ShiftConcatPath::rows, ShiftConcatPath::elements}) {
    cuda::launch_shift_concat(forward.arguments(layer, tables), path, nullptr);
    forward.output.each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
      EXPECT_TRUE(std::isnan(to_double(forward.output.at(n, c, y, x))));
    });
  }
}

TEST(ShiftConcatPathChoice, FollowsTheLayout) {
  LayerCase layer;
  layer.intrinsic_channels = 8;
  layer.height = 32;
  layer.width = 32;
  layer.intrinsic.assign(layer.intrinsic_size().elements(), 0);
  layer.residual_map.assign(layer.output_size().elements(), 0);
  const auto choice = [&] {
    Forward<float> forward(layer);
    const LentTables<float> tables(layer, true);
    return cuda::shift_concat_path(forward.arguments(layer, tables));
  };
  EXPECT_EQ(choice(), ShiftConcatPath::rows);
  layer.layout = layer.output_layout = Layout::channels_last;
  EXPECT_EQ(choice(), ShiftConcatPath::pixels);
  layer.misalignment = 1;
  EXPECT_EQ(choice(), ShiftConcatPath::elements);
  layer.layout = layer.output_layout = Layout::contiguous;
  EXPECT_EQ(choice(), ShiftConcatPath::rows);
  layer.layout = layer.output_layout = Layout::every_second;
  EXPECT_EQ(choice(), ShiftConcatPath::elements);
}

}  // namespace
}  // namespace ghostsr::cuda_test
