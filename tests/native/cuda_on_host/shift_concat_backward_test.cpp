#include "shift_concat_backward.cuh"

#include <gtest/gtest.h>

#include "channel_plan.cuh"
#include "checks.h"
#include "layer_case.h"
#include "lent_gradient.h"

namespace ghostsr::cuda_test {
namespace {

using cuda::ShiftConcatBackwardPath;

template <typename T>
cuda::ShiftConcatBackwardArguments<T> backward_arguments(const LayerCase& layer,
                                                         const LentGradient<T>& gradient,
                                                         const LentPlan<T>& plan, StridedMap<T>& result) {
  return {
      .extent = result.extent(),
      .intrinsic_channels = static_cast<int32_t>(layer.intrinsic_channels),
      .channels = static_cast<int32_t>(layer.channels()),
      .readers = plan.view().readers,
      .reader_begin = plan.view().reader_begin,
      .shift_range = plan.view().shift_range,
      .gradient = gradient.gradient(),
      .grad_intrinsic = result.data(),
      .grad_intrinsic_strides = result.strides(),
  };
}

// The gradient for the intrinsic map, and for each of its elements the sum of the terms' magnitudes.
struct ExpectedGradient {
  std::vector<double> values;
  double largest_terms = 0;
};

ExpectedGradient expected_gradient(const LayerCase& layer, const std::vector<double>& passed) {
  ExpectedGradient expected;
  expected.values.assign(layer.intrinsic_size().elements(), 0);
  std::vector<double> magnitudes(expected.values.size(), 0);
  size_t index = 0;
  for (int64_t n = 0; n < layer.batch; ++n) {
    for (int64_t channel = 0; channel < layer.channels(); ++channel) {
      const int64_t concatenated = layer.order ? (*layer.order)[channel] : channel;
      const int64_t ghost = concatenated - layer.intrinsic_channels;
      const int64_t from = ghost < 0 ? concatenated : layer.source[ghost];
      const int64_t dy = ghost < 0 ? 0 : layer.shift[2 * ghost];
      const int64_t dx = ghost < 0 ? 0 : layer.shift[2 * ghost + 1];
      const double gain = ghost >= 0 && layer.gain ? (*layer.gain)[ghost] : 1;
      for (int64_t y = 0; y < layer.height; ++y) {
        for (int64_t x = 0; x < layer.width; ++x) {
          const double term = gain * passed[index++];
          if (y + dy >= 0 && y + dy < layer.height && x + dx >= 0 && x + dx < layer.width) {
            const int64_t to =
                ((n * layer.intrinsic_channels + from) * layer.height + y + dy) * layer.width + x + dx;
            expected.values[to] += term;
            magnitudes[to] += std::abs(term);
            expected.largest_terms = std::max(expected.largest_terms, magnitudes[to]);
          }
        }
      }
    }
  }
  return expected;
}

template <typename T>
StridedMap<T> by_cpu(const LayerCase& layer, const LentGradient<T>& gradient) {
  StridedMap<T> result(layer.intrinsic_size(), layer.output_layout);
  const ChannelPlan plan = layer.plan();
  const cuda::OutputGradient<T> from = gradient.gradient();
  const ShiftConcatBackwardParams<T> params{
      .extent = result.extent(),
      .intrinsic_channels = layer.intrinsic_channels,
      .origins = plan.origins.data(),
      .readers = plan.readers.data(),
      .reader_begin = plan.reader_begin.data(),
      .radius = plan.radius,
      .grad_output = from.data,
      .grad_output_strides = from.strides,
      .activation = layer.cpu_activation(),
      .mask_source = from.mask_source,
      .output = from.output,
      .output_strides = from.output_strides,
      .intrinsic = from.intrinsic,
      .intrinsic_strides = from.intrinsic_strides,
      .grad_intrinsic = result.data(),
      .grad_intrinsic_strides = result.strides(),
      .residual_scale = layer.residual_scale,
      .grad_residual = nullptr,
      .grad_residual_strides = {},
  };
  shift_concat_backward(params, 0, shift_concat_backward_tasks(params));
  return result;
}

template <typename T>
void expect_backward(const LayerCase& layer, MaskSource mask_source, ShiftConcatBackwardPath path) {
  const LentGradient<T> gradient(layer, mask_source);
  const LentPlan<T> plan(layer, true);
  StridedMap<T> result(layer.intrinsic_size(), layer.output_layout, layer.misalignment);
  const auto loan = result.lend_for_writing();
  cuda::launch_shift_concat_backward(backward_arguments(layer, gradient, plan, result), path, nullptr);
  expect_each_element_written_once(result, loan);
  const ExpectedGradient expected = expected_gradient(layer, gradient.passed());
  const double tolerance =
      layer.dyadic ? 0 : relative_tolerance<accumulator_t<T>>() * std::max(1.0, expected.largest_terms);
  expect_map(result, expected.values, tolerance);
  expect_same_maps(result, by_cpu(layer, gradient), tolerance);
}

template <typename T>
std::vector<ShiftConcatBackwardPath> allowed_paths(const LayerCase& layer, MaskSource mask_source) {
  const LentGradient<T> gradient(layer, mask_source);
  const LentPlan<T> plan(layer, true);
  StridedMap<T> result(layer.intrinsic_size(), layer.output_layout, layer.misalignment);
  const auto arguments = backward_arguments(layer, gradient, plan, result);
  std::vector<ShiftConcatBackwardPath> paths{ShiftConcatBackwardPath::elements};
  if (cuda::can_take_rows(arguments)) {
    paths.push_back(ShiftConcatBackwardPath::rows);
  }
  if (cuda::can_take_pixels(arguments)) {
    paths.push_back(ShiftConcatBackwardPath::pixels);
  }
  return paths;
}

template <typename T>
class ShiftConcatBackwardOnHost : public testing::Test {};
TYPED_TEST_SUITE(ShiftConcatBackwardOnHost, StorageTypes, StorageTypeNames);

TYPED_TEST(ShiftConcatBackwardOnHost, EqualsDefinitionAndCpuOnEveryPathOfRandomLayers) {
  std::mt19937_64 random(4);
  std::array<int, 3> cases{};
  for (int index = 0; index < random_cases(180); ++index) {
    LayerCase layer = random_case(random, {});
    host_cuda::seed_thread_order(random());
    const MaskSource mask_source = draw_mask_source(random, layer);
    SCOPED_TRACE(testing::Message() << "case " << index << ", mask source " << static_cast<int>(mask_source));
    for (const ShiftConcatBackwardPath path : allowed_paths<TypeParam>(layer, mask_source)) {
      SCOPED_TRACE(testing::Message() << "path " << static_cast<int>(path));
      ASSERT_NO_FATAL_FAILURE(expect_backward<TypeParam>(layer, mask_source, path));
      ++cases[static_cast<int>(path)];
    }
  }
  for (const int count : cases) {
    EXPECT_GT(count, random_cases(180) / 20) << "a path is hardly tested";
  }
}

TYPED_TEST(ShiftConcatBackwardOnHost, EqualsDefinitionOnChannelsLastMapsOfManyChannels) {
  std::mt19937_64 random(7);
  for (int index = 0; index < random_cases(50); ++index) {
    LayerCase layer = random_case(
        random, {.most_channels = index % 5 == 0 ? 400 : 160, .most_pixels = 400, .most_shift = 7});
    host_cuda::seed_thread_order(random());
    if (layer.intrinsic_channels % 8 != 0 || layer.ghosts % 8 != 0) {
      continue;
    }
    layer.layout = layer.output_layout = index % 2 == 0 ? Layout::channels_last : Layout::spaced_pixels;
    layer.misalignment = 0;
    const MaskSource mask_source = draw_mask_source(random, layer);
    SCOPED_TRACE(testing::Message() << "case " << index << ", mask source " << static_cast<int>(mask_source));
    ASSERT_NO_FATAL_FAILURE(expect_backward<TypeParam>(layer, mask_source, ShiftConcatBackwardPath::pixels));
  }
}

TYPED_TEST(ShiftConcatBackwardOnHost, TakesMoreReadersThanABlockKeeps) {
  LayerCase layer;
  layer.intrinsic_channels = 8;
  layer.height = 3;
  layer.width = 5;
  for (const auto& [ghosts, layout] :
       {std::pair{600, Layout::contiguous}, {600, Layout::channels_last}, {400, Layout::channels_last}}) {
    layer.ghosts = ghosts;
    layer.layout = layer.output_layout = layout;
    layer.source.assign(layer.ghosts, 2);
    layer.shift.resize(2 * layer.ghosts);
    for (int64_t index = 0; index < 2 * layer.ghosts; ++index) {
      layer.shift[index] = index % 3 - 1;
    }
    layer.intrinsic.assign(layer.intrinsic_size().elements(), 1);
    layer.residual_map.assign(layer.output_size().elements(), 0);
    layer.grad_output.resize(layer.output_size().elements());
    for (size_t index = 0; index < layer.grad_output.size(); ++index) {
      layer.grad_output[index] = static_cast<double>(index % 7) - 3;
    }
    for (const ShiftConcatBackwardPath path : allowed_paths<TypeParam>(layer, MaskSource::none)) {
      SCOPED_TRACE(testing::Message() << "path " << static_cast<int>(path));
      ASSERT_NO_FATAL_FAILURE(expect_backward<TypeParam>(layer, MaskSource::none, path));
    }
  }
}

TYPED_TEST(ShiftConcatBackwardOnHost, StaysInItsMemoryWhereTheTablesAreOutOfRange) {
  std::mt19937_64 random(5);
  for (int index = 0; index < 20; ++index) {
    LayerCase layer = random_case(random, {});
    std::vector<int64_t> order(layer.channels());
    for (int64_t& entry : order) {
      entry = static_cast<int64_t>(random() % 40) - 10;
    }
    for (int64_t& entry : layer.source) {
      entry = static_cast<int64_t>(random() % 40) - 10;
    }
    for (int64_t& entry : layer.shift) {
      entry = static_cast<int64_t>(random() % 400) - 200;
    }
    layer.order = order;
    layer.activation = ActivationKind::none;
    const LentGradient<TypeParam> gradient(layer, MaskSource::none, false);
    const LentPlan<TypeParam> plan(layer, index % 2 == 0);
    for (const ShiftConcatBackwardPath path :
         {ShiftConcatBackwardPath::elements, ShiftConcatBackwardPath::rows,
          ShiftConcatBackwardPath::pixels}) {
      StridedMap<TypeParam> result(layer.intrinsic_size(), layer.output_layout, layer.misalignment);
      const auto arguments = backward_arguments(layer, gradient, plan, result);
      if ((path == ShiftConcatBackwardPath::rows && !cuda::can_take_rows(arguments)) ||
          (path == ShiftConcatBackwardPath::pixels && !cuda::can_take_pixels(arguments))) {
        continue;
      }
      const auto loan = result.lend_for_writing();
      cuda::launch_shift_concat_backward(arguments, path, nullptr);
      expect_each_element_written_once(result, loan);
    }
  }
}

TEST(ChannelPlanOnHost, ListsTheReadersOfEachChannelInOutputOrder) {
  std::mt19937_64 random(6);
  for (int index = 0; index < 60; ++index) {
    host_cuda::seed_thread_order(random());
    const LayerCase layer = random_case(
        random, {.most_channels = index % 10 == 0 ? 1500 : 40, .most_pixels = 1, .most_shift = 7});
    const LentPlan<float> device(layer, index % 2 == 0);
    const ChannelPlan host = layer.plan();
    for (int64_t channel = 0; channel <= layer.intrinsic_channels; ++channel) {
      ASSERT_EQ(device.view().reader_begin[channel], host.reader_begin[channel]);
    }
    for (int64_t reader = 0; reader < layer.channels(); ++reader) {
      const cuda::ChannelLink<float>& link = device.view().readers[reader];
      const ChannelOrigin& origin = host.origins[host.readers[reader]];
      ASSERT_EQ(link.output, host.readers[reader]);
      ASSERT_EQ(link.source, origin.source);
      ASSERT_EQ(link.dy, origin.dy);
      ASSERT_EQ(link.dx, origin.dx);
      ASSERT_EQ(link.gain, origin.gain);
      ASSERT_EQ(link.bias, origin.bias);
    }
    for (int64_t ghost = 0; ghost < layer.ghosts; ++ghost) {
      ASSERT_EQ(device.view().ghosts[ghost].output, host.ghost_outputs[ghost]);
      ASSERT_EQ(device.view().ghosts[ghost].source, layer.source[ghost]);
    }
  }
}

}  // namespace
}  // namespace ghostsr::cuda_test
