#include "core/shift_selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "activations.h"
#include "core/channel_plan.h"

namespace ghostsr {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

int64_t selected(const std::vector<double>& logits) {
  int64_t index = -1;
  select_candidate(logits.data(), nullptr, 1.0, 1, static_cast<int64_t>(logits.size()), &index);
  return index;
}

TEST(SelectCandidate, TakesTheLargest) { EXPECT_EQ(selected({-3, -1, -2}), 1); }

TEST(SelectCandidate, TakesTheFirstOfEquals) { EXPECT_EQ(selected({0, 2, 2}), 1); }

TEST(SelectCandidate, TakesTheFirstNan) { EXPECT_EQ(selected({1, kNan, 9, kNan}), 1); }

TEST(SelectCandidate, TakesTheFirstWhereNothingIsFinite) { EXPECT_EQ(selected({-INFINITY, -INFINITY}), 0); }

TEST(SelectCandidate, AddsTheNoiseOfItsRow) {
  const std::vector<double> logits{0, 1, 0, 1};
  const std::vector<double> noise{5, 0, 0, 0};
  std::vector<int64_t> index(2);

  select_candidate(logits.data(), noise.data(), 0.5, 2, 2, index.data());

  EXPECT_EQ(index, (std::vector<int64_t>{0, 1}));
}

TEST(SelectionGradient, IsThatOfTheSoftMixture) {
  const std::vector<double> logits{0.3, -0.2, 1.1};
  const std::vector<double> scores{2.0, -1.0, 0.5};
  const double tau = 0.7;
  const auto mixture = [&](const std::vector<double>& z) {
    double total = 0;
    double sum = 0;
    for (size_t index = 0; index < z.size(); ++index) {
      total += std::exp(z[index] / tau);
      sum += std::exp(z[index] / tau) * scores[index];
    }
    return sum / total;
  };
  std::vector<double> gradient(3);

  selection_gradient(logits.data(), nullptr, tau, scores.data(), 3, gradient.data());

  for (size_t index = 0; index < 3; ++index) {
    std::vector<double> up = logits;
    std::vector<double> down = logits;
    up[index] += 1e-5;
    down[index] -= 1e-5;
    EXPECT_NEAR(gradient[index], (mixture(up) - mixture(down)) / 2e-5, 1e-8);
  }
}

TEST(SelectionGradient, TakesLogitsThatWouldOverflow) {
  const std::vector<double> logits{1e6, 1e6 - 1, 0};
  const std::vector<double> scores{1, 2, 3};
  std::vector<double> gradient(3);

  selection_gradient(logits.data(), nullptr, 1.0, scores.data(), 3, gradient.data());

  EXPECT_NEAR(gradient[0] + gradient[1] + gradient[2], 0.0, 1e-12);
  EXPECT_TRUE(std::isfinite(gradient[0]));
}

TEST(ReduceParts, AddsThemInOrder) {
  const std::vector<double> partial{1, 2, 10, 20, 100, 200};
  std::vector<double> sums(2);

  reduce_parts(partial.data(), 3, 2, sums.data());

  EXPECT_EQ(sums, (std::vector<double>{111, 222}));
}

struct GhostSumCase {
  Extent extent;
  int64_t intrinsic;
  int64_t ghosts;
  bool channels_last;
};

class GhostSums : public testing::TestWithParam<GhostSumCase> {};

TEST_P(GhostSums, EqualTheirDefinition) {
  const auto [extent, intrinsic, ghosts, channels_last] = GetParam();
  std::mt19937 random(3);
  std::vector<int64_t> source(ghosts);
  std::vector<int64_t> shift(2 * ghosts);
  std::vector<int64_t> order(intrinsic + ghosts);
  std::generate(source.begin(), source.end(), [&] { return static_cast<int64_t>(random()) % intrinsic; });
  std::generate(shift.begin(), shift.end(), [&] { return static_cast<int64_t>(random() % 5) - 2; });
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  const ChannelPlan plan =
      make_channel_plan(intrinsic, ghosts, source.data(), shift.data(), nullptr, nullptr, order.data());
  const auto strides = [&](int64_t channels) {
    return channels_last
               ? Strides{extent.height * extent.width * channels, 1, extent.width * channels, channels}
               : Strides{channels * extent.height * extent.width, extent.height * extent.width, extent.width,
                         1};
  };
  const auto draw = [&](int64_t channels) {
    std::vector<float> values(extent.batch * channels * extent.height * extent.width);
    for (float& value : values) {
      value = static_cast<float>(static_cast<int>(random() % 9) - 4);
    }
    return values;
  };
  const std::vector<float> gradient = draw(intrinsic + ghosts);
  const std::vector<float> output = draw(intrinsic + ghosts);
  const std::vector<float> map = draw(intrinsic);
  const std::vector<double> slopes = test_slopes(intrinsic + ghosts);
  constexpr std::pair<MaskSource, ActivationKind> masks[] = {
      {MaskSource::none, ActivationKind::none},       {MaskSource::output, ActivationKind::relu},
      {MaskSource::output, ActivationKind::leaky},    {MaskSource::intrinsic, ActivationKind::relu},
      {MaskSource::intrinsic, ActivationKind::leaky},
  };
  for (const GhostSum kind : {GhostSum::candidates, GhostSum::chosen, GhostSum::total}) {
    for (const auto& [source_of_mask, activation] : masks) {
      constexpr int32_t max_shift = 2;
      const GhostSumParams<float> params{
          .extent = extent,
          .intrinsic_channels = intrinsic,
          .ghosts = ghosts,
          .origins = plan.origins.data(),
          .ghost_outputs = plan.ghost_outputs.data(),
          .radius = plan.radius,
          .grad_output = gradient.data(),
          .grad_output_strides = strides(intrinsic + ghosts),
          .activation = {activation, activation == ActivationKind::leaky ? slopes.data() : nullptr},
          .mask_source = source_of_mask,
          .output = output.data(),
          .output_strides = strides(intrinsic + ghosts),
          .intrinsic = map.data(),
          .intrinsic_strides = strides(intrinsic),
          .residual_scale = 0.5,
          .kind = kind,
          .max_shift = kind == GhostSum::candidates ? max_shift : 0,
      };
      const int64_t width = ghost_sum_width(params);
      ASSERT_EQ(width, kind == GhostSum::candidates ? 25 : 1);
      const int64_t parts = ghost_sum_parts(params);
      std::vector<double> partial(parts * ghosts * width);
      ghost_sum(params, parts / 2, parts, partial.data());
      ghost_sum(params, 0, parts / 2, partial.data());
      std::vector<double> sums(ghosts * width);
      reduce_parts(partial.data(), parts, ghosts * width, sums.data());

      const auto at = [&](const std::vector<float>& values, int64_t channels, int64_t n, int64_t c, int64_t y,
                          int64_t x) {
        const Strides step = strides(channels);
        const bool inside = y >= 0 && x >= 0 && y < extent.height && x < extent.width;
        return inside ? values[n * step.batch + c * step.channel + y * step.y + x * step.x] : 0.0F;
      };
      for (int64_t ghost = 0; ghost < ghosts; ++ghost) {
        for (int64_t index = 0; index < width; ++index) {
          const bool candidates = kind == GhostSum::candidates;
          const int64_t dy = candidates ? index / 5 - max_shift : shift[2 * ghost];
          const int64_t dx = candidates ? index % 5 - max_shift : shift[2 * ghost + 1];
          const int64_t channel = plan.ghost_outputs[ghost];
          double expected = 0;
          for (int64_t n = 0; n < extent.batch; ++n) {
            for (int64_t y = 0; y < extent.height; ++y) {
              for (int64_t x = 0; x < extent.width; ++x) {
                const float own =
                    at(map, intrinsic, n, source[ghost], y + shift[2 * ghost], x + shift[2 * ghost + 1]);
                const float seen = source_of_mask == MaskSource::output
                                       ? at(output, intrinsic + ghosts, n, channel, y, x)
                                       : own;
                const double factor =
                    kind == GhostSum::total ? 1.0 : at(map, intrinsic, n, source[ghost], y + dy, x + dx);
                expected += derivative(activation, slopes[channel], seen) * 0.5 *
                            at(gradient, intrinsic + ghosts, n, channel, y, x) * factor;
              }
            }
          }
          EXPECT_EQ(sums[ghost * width + index], expected) << ghost << " " << index;
        }
      }
    }
  }
}

// Beyond one piece of a row and eight channels, with some left over, and within.
INSTANTIATE_TEST_SUITE_P(
    Layouts, GhostSums,
    testing::Values(GhostSumCase{{2, 6, 19}, 3, 4, false}, GhostSumCase{{2, 6, 19}, 3, 4, true},
                    GhostSumCase{{2, 3, 150}, 17, 20, false}, GhostSumCase{{2, 3, 150}, 17, 20, true},
                    GhostSumCase{{2, 3, 128}, 16, 8, true}, GhostSumCase{{1, 1, 1}, 9, 9, true}));

}  // namespace
}  // namespace ghostsr
