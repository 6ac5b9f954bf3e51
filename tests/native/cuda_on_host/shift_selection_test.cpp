#include "shift_selection.cuh"

#include <gtest/gtest.h>

#include "checks.h"
#include "core/shift_selection.h"
#include "ghost_sum.cuh"
#include "layer_case.h"
#include "lent_gradient.h"

namespace ghostsr::cuda_test {
namespace {

// Each sum of a case, and the sum of its terms' magnitudes.
struct Sums {
  std::vector<double> values;
  std::vector<double> magnitudes;
};

Sums expected_sums(const LayerCase& layer, const std::vector<double>& passed, GhostSum kind,
                   int64_t max_shift) {
  Sums sums;
  std::vector<int64_t> position(layer.channels());
  for (int64_t channel = 0; channel < layer.channels(); ++channel) {
    position[layer.order ? (*layer.order)[channel] : channel] = channel;
  }
  const int64_t window = kind == GhostSum::candidates ? 2 * max_shift + 1 : 1;
  for (int64_t ghost = 0; ghost < layer.ghosts; ++ghost) {
    const int64_t channel = position[layer.intrinsic_channels + ghost];
    for (int64_t candidate = 0; candidate < window * window; ++candidate) {
      const bool candidates = kind == GhostSum::candidates;
      const int64_t dy = candidates ? candidate / window - max_shift : layer.shift[2 * ghost];
      const int64_t dx = candidates ? candidate % window - max_shift : layer.shift[2 * ghost + 1];
      double value = 0;
      double magnitude = 0;
      for (int64_t n = 0; n < layer.batch; ++n) {
        for (int64_t y = 0; y < layer.height; ++y) {
          for (int64_t x = 0; x < layer.width; ++x) {
            const bool inside = y + dy >= 0 && y + dy < layer.height && x + dx >= 0 && x + dx < layer.width;
            const double pixel =
                kind == GhostSum::total ? 1
                : inside
                    ? layer.intrinsic[((n * layer.intrinsic_channels + layer.source[ghost]) * layer.height +
                                       y + dy) *
                                          layer.width +
                                      x + dx]
                    : 0;
            const double term =
                pixel * passed[((n * layer.channels() + channel) * layer.height + y) * layer.width + x];
            value += term;
            magnitude += std::abs(term);
          }
        }
      }
      sums.values.push_back(value);
      sums.magnitudes.push_back(magnitude);
    }
  }
  return sums;
}

template <typename T>
std::vector<double> by_cpu(const LayerCase& layer, const cuda::OutputGradient<T>& gradient, GhostSum kind,
                           int64_t max_shift) {
  const ChannelPlan plan = layer.plan();
  const GhostSumParams<T> params{
      .extent = {layer.batch, layer.height, layer.width},
      .intrinsic_channels = layer.intrinsic_channels,
      .ghosts = layer.ghosts,
      .origins = plan.origins.data(),
      .ghost_outputs = plan.ghost_outputs.data(),
      .radius = plan.radius,
      .grad_output = gradient.data,
      .grad_output_strides = gradient.strides,
      .activation = layer.cpu_activation(),
      .mask_source = gradient.mask_source,
      .output = gradient.output,
      .output_strides = gradient.output_strides,
      .intrinsic = gradient.intrinsic,
      .intrinsic_strides = gradient.intrinsic_strides,
      .residual_scale = layer.residual_scale,
      .kind = kind,
      .max_shift = static_cast<int32_t>(max_shift),
  };
  const int64_t count = layer.ghosts * ghost_sum_width(params);
  std::vector<double> partial(ghost_sum_parts(params) * count);
  ghost_sum(params, 0, ghost_sum_parts(params), partial.data());
  std::vector<double> sums(count);
  reduce_parts(partial.data(), ghost_sum_parts(params), count, sums.data());
  return sums;
}

// Both stages of the sums of a case, on the host machine.
template <typename T>
std::vector<double> by_kernel(const LayerCase& layer, const cuda::OutputGradient<T>& gradient,
                              const LentPlan<T>& plan, GhostSum kind, int64_t max_shift, bool with_gain) {
  using A = accumulator_t<T>;
  const Extent extent{layer.batch, layer.height, layer.width};
  const int64_t width = cuda::ghost_sum_width(kind, max_shift);
  const int64_t parts = cuda::ghost_sum_parts(extent, layer.ghosts, gradient);
  std::vector<A> partial(parts * layer.ghosts * width, std::numeric_limits<A>::quiet_NaN());
  {
    const host_cuda::Loan loan(partial.data(), partial.size() * sizeof(A), true);
    cuda::launch_ghost_sum(
        cuda::GhostSumArguments<T>{extent, static_cast<int32_t>(layer.ghosts), plan.view().ghosts, gradient,
                                   kind, static_cast<int32_t>(max_shift), partial.data()},
        nullptr);
    EXPECT_EQ(loan.writes(), std::vector<uint8_t>(partial.size() * sizeof(A), 1));
  }
  std::vector<double> sums(layer.ghosts * width);
  const host_cuda::Loan partial_loan(partial.data(), partial.size() * sizeof(A), false);
  const host_cuda::Loan sums_loan(sums.data(), sums.size() * sizeof(double), true);
  cuda::launch_reduce_parts(partial.data(), parts, static_cast<int32_t>(layer.ghosts), width,
                            with_gain ? plan.view().ghosts : nullptr, sums.data(), nullptr);
  EXPECT_EQ(sums_loan.writes(), std::vector<uint8_t>(sums.size() * sizeof(double), 1));
  return sums;
}

template <typename T>
class GhostSumOnHost : public testing::Test {};
TYPED_TEST_SUITE(GhostSumOnHost, StorageTypes, StorageTypeNames);

TYPED_TEST(GhostSumOnHost, EqualsDefinitionAndCpuOfRandomLayers) {
  std::mt19937_64 random(7);
  int compared = 0;
  for (int index = 0; index < random_cases(160); ++index) {
    LayerCase layer = random_case(random, {});
    if (layer.ghosts == 0) {
      continue;
    }
    host_cuda::seed_thread_order(random());
    const MaskSource mask_source = draw_mask_source(random, layer);
    const LentGradient<TypeParam> gradient(layer, mask_source);
    const LentPlan<TypeParam> plan(layer, true);
    // The paper's window has a kernel of its own, so it gets half of the cases.
    const int64_t max_shift = index % 2 == 0 ? 1 : static_cast<int64_t>(random() % 8);
    for (const GhostSum kind : {GhostSum::candidates, GhostSum::chosen, GhostSum::total}) {
      SCOPED_TRACE(testing::Message()
                   << "case " << index << ", kind " << static_cast<int>(kind) << ", mask source "
                   << static_cast<int>(mask_source) << ", max_shift " << max_shift);
      const std::vector<double> found = by_kernel(layer, gradient.gradient(), plan, kind, max_shift, false);
      const Sums expected = expected_sums(layer, gradient.passed(), kind, max_shift);
      const std::vector<double> cpu = by_cpu(layer, gradient.gradient(), kind, max_shift);
      for (size_t sum = 0; sum < found.size(); ++sum) {
        const double slack = relative_tolerance<accumulator_t<TypeParam>>() * expected.magnitudes[sum];
        ASSERT_NEAR(found[sum], expected.values[sum], slack) << "sum " << sum;
        ASSERT_NEAR(found[sum], cpu[sum], slack) << "sum " << sum;
      }
      compared += static_cast<int>(found.size());
    }
  }
  EXPECT_GT(compared, random_cases(160) * 10);
}

TYPED_TEST(GhostSumOnHost, GivesTheSameBitsWhateverTheOrderOfThreads) {
  std::mt19937_64 random(8);
  LayerCase layer = random_case(random, {});
  while (layer.ghosts < 2 || layer.dyadic || layer.width < 40) {
    layer = random_case(random, {});
  }
  const LentGradient<TypeParam> gradient(layer, MaskSource::none);
  const LentPlan<TypeParam> plan(layer, true);
  const auto sums = [&](uint64_t seed) {
    host_cuda::seed_thread_order(seed);
    return by_kernel(layer, gradient.gradient(), plan, GhostSum::candidates, 1, true);
  };
  const std::vector<double> first = sums(0);
  for (uint64_t seed = 1; seed < 5; ++seed) {
    EXPECT_EQ(sums(seed), first);
  }
}

// Logits [rows, candidates] with a gap after each, and noise; lent.
template <typename L>
struct Logits {
  int64_t rows;
  int64_t candidates;
  std::vector<L> logits;
  std::vector<L> noise;
  std::vector<double> logits_values;
  std::vector<double> noise_values;
  bool noisy;

  Logits(std::mt19937_64& random, int64_t row_count, int64_t candidate_count)
      : rows(row_count), candidates(candidate_count), noisy(random() % 2 == 0) {
    std::normal_distribution<double> normal;
    for (int64_t index = 0; index < rows * candidates; ++index) {
      logits.push_back(from_double<L>(normal(random)));
      logits.push_back(from_double<L>(std::numeric_limits<double>::quiet_NaN()));
      noise.push_back(from_double<L>(normal(random)));
      logits_values.push_back(to_double(logits[2 * index]));
      noise_values.push_back(to_double(noise.back()));
    }
  }

  cuda::SelectionArguments<L> arguments(double tau, int64_t ghosts) const {
    return {
        .logits = logits.data(),
        .logits_row_step = 2 * candidates,
        .logits_column_step = 2,
        .noise = noisy ? noise.data() : nullptr,
        .noise_row_step = candidates,
        .noise_column_step = 1,
        .tau = tau,
        .rows = static_cast<int32_t>(rows),
        .candidates = static_cast<int32_t>(candidates),
        .ghosts = static_cast<int32_t>(ghosts),
    };
  }
  const double* noise_or_null() const { return noisy ? noise_values.data() : nullptr; }
};

template <typename L>
class ShiftSelectionOnHost : public testing::Test {};
TYPED_TEST_SUITE(ShiftSelectionOnHost, StorageTypes, StorageTypeNames);

TYPED_TEST(ShiftSelectionOnHost, SelectsAndDifferentiatesAsTheCpu) {
  std::mt19937_64 random(9);
  for (int index = 0; index < random_cases(60); ++index) {
    host_cuda::seed_thread_order(random());
    const int64_t max_shift = static_cast<int64_t>(random() % 8);
    const int64_t window = 2 * max_shift + 1;
    const int64_t candidates = window * window;
    const int64_t ghosts = 1 + static_cast<int64_t>(random() % 300) / (index % 10 == 0 ? 1 : 30);
    const int64_t rows = index % 3 == 0 ? 1 : ghosts;
    Logits<TypeParam> logits(random, rows, candidates);
    if (index % 7 == 0) {
      logits.logits[2 * (rows * candidates - 1)] =
          from_double<TypeParam>(std::numeric_limits<double>::quiet_NaN());
      logits.logits_values.back() = std::numeric_limits<double>::quiet_NaN();
    }
    const double tau = 0.25 * static_cast<double>(1 + random() % 8);
    const auto arguments = logits.arguments(tau, ghosts);
    const host_cuda::Loan logits_loan(logits.logits.data(), logits.logits.size() * sizeof(TypeParam), false);
    const host_cuda::Loan noise_loan(logits.noise.data(), logits.noise.size() * sizeof(TypeParam), false);

    std::vector<int64_t> shift(2 * ghosts);
    {
      const host_cuda::Loan loan(shift.data(), shift.size() * sizeof(int64_t), true);
      cuda::launch_select_shift(arguments, shift.data(), nullptr);
      ASSERT_EQ(loan.writes(), std::vector<uint8_t>(shift.size() * sizeof(int64_t), 1));
    }
    std::vector<int64_t> selected(rows);
    select_candidate(logits.logits_values.data(), logits.noise_or_null(), tau, rows, candidates,
                     selected.data());
    for (int64_t ghost = 0; ghost < ghosts; ++ghost) {
      ASSERT_EQ(shift[2 * ghost], selected[rows == ghosts ? ghost : 0] / window - max_shift);
      ASSERT_EQ(shift[2 * ghost + 1], selected[rows == ghosts ? ghost : 0] % window - max_shift);
    }

    std::vector<double> scores(ghosts * candidates);
    std::vector<double> totals(rows * candidates, 0);
    for (int64_t score = 0; score < ghosts * candidates; ++score) {
      scores[score] = std::normal_distribution<double>()(random);
      totals[score % (rows * candidates)] += scores[score];
    }
    std::vector<TypeParam> stored(ghosts * candidates);
    std::vector<TypeParam> gradient(rows * candidates);
    {
      const host_cuda::Loan stored_loan(stored.data(), stored.size() * sizeof(TypeParam), true);
      const host_cuda::Loan scores_loan(scores.data(), scores.size() * sizeof(double), false);
      const host_cuda::Loan gradient_loan(gradient.data(), gradient.size() * sizeof(TypeParam), true);
      cuda::launch_selection_gradient(arguments, scores.data(), stored.data(), gradient.data(), nullptr);
      ASSERT_EQ(stored_loan.writes(), std::vector<uint8_t>(stored.size() * sizeof(TypeParam), 1));
      ASSERT_EQ(gradient_loan.writes(), std::vector<uint8_t>(gradient.size() * sizeof(TypeParam), 1));
    }
    for (int64_t score = 0; score < ghosts * candidates; ++score) {
      ASSERT_EQ(to_double(stored[score]), to_double(from_double<TypeParam>(scores[score])));
    }
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<double> expected(candidates);
      selection_gradient(logits.logits_values.data() + row * candidates,
                         logits.noisy ? logits.noise_values.data() + row * candidates : nullptr, tau,
                         totals.data() + row * candidates, candidates, expected.data());
      for (int64_t candidate = 0; candidate < candidates; ++candidate) {
        const double found = to_double(gradient[row * candidates + candidate]);
        if (std::isnan(expected[candidate])) {
          ASSERT_TRUE(std::isnan(found));
        } else {
          ASSERT_NEAR(found, expected[candidate], 1e-12 + rounding_step<TypeParam>(expected[candidate]));
        }
      }
    }
  }
}

}  // namespace
}  // namespace ghostsr::cuda_test
