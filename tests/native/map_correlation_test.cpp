#include "core/correlation/map_correlation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace ghostsr {
namespace {

struct Problem {
  Extent extent;
  int64_t first_channels;
  int64_t second_channels;
  int64_t max_lag_y;
  int64_t max_lag_x;
};

std::vector<float> random_maps(const Extent& extent, int64_t channels, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> maps(extent.batch * channels * extent.height * extent.width);
  for (float& value : maps) {
    value = normal(generator);
  }
  return maps;
}

void whole(int64_t count, FunctionRef<void(int64_t, int64_t)> body) { body(0, count); }

void one_by_one_backwards(int64_t count, FunctionRef<void(int64_t, int64_t)> body) {
  for (int64_t index = count - 1; index >= 0; --index) {
    body(index, index + 1);
  }
}

std::vector<double> correlation(const Problem& problem, const std::vector<float>& first,
                                const std::vector<float>& second, ParallelFor parallel = whole) {
  const int64_t lags = (2 * problem.max_lag_y + 1) * (2 * problem.max_lag_x + 1);
  std::vector<double> sums(lags * problem.first_channels * problem.second_channels, -1.0);
  correlate_maps({problem.extent, first.data(), problem.first_channels, second.data(),
                  problem.second_channels, problem.max_lag_y, problem.max_lag_x},
                 sums.data(), parallel);
  return sums;
}

std::vector<double> expected(const Problem& problem, const std::vector<float>& first,
                             const std::vector<float>& second) {
  const auto [batch, height, width] = problem.extent;
  std::vector<double> sums;
  for (int64_t ly = -problem.max_lag_y; ly <= problem.max_lag_y; ++ly) {
    for (int64_t lx = -problem.max_lag_x; lx <= problem.max_lag_x; ++lx) {
      for (int64_t i = 0; i < problem.first_channels; ++i) {
        for (int64_t j = 0; j < problem.second_channels; ++j) {
          double sum = 0;
          for (int64_t n = 0; n < batch; ++n) {
            for (int64_t y = 0; y < height; ++y) {
              for (int64_t x = 0; x < width; ++x) {
                if (y + ly >= 0 && y + ly < height && x + lx >= 0 && x + lx < width) {
                  const int64_t from = ((n * problem.first_channels + i) * height + y) * width + x;
                  const int64_t to = ((n * problem.second_channels + j) * height + y + ly) * width + x + lx;
                  sum += double{first[from]} * double{second[to]};
                }
              }
            }
          }
          sums.push_back(sum);
        }
      }
    }
  }
  return sums;
}

class CorrelateMaps : public testing::TestWithParam<Problem> {};

TEST_P(CorrelateMaps, SumsTheProducts) {
  const Problem& problem = GetParam();
  const auto first = random_maps(problem.extent, problem.first_channels, 1);
  const auto second = random_maps(problem.extent, problem.second_channels, 2);
  const auto found = correlation(problem, first, second);
  const auto wanted = expected(problem, first, second);
  const auto [batch, height, width] = problem.extent;
  const double norms = 4.0 * static_cast<double>(batch * height * width) + 16.0;
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t index = 0; index < wanted.size(); ++index) {
    EXPECT_NEAR(found[index], wanted[index], 1e-6 * norms) << index;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CorrelateMaps,
                         testing::Values(Problem{{1, 1, 1}, 1, 1, 0, 0}, Problem{{1, 1, 1}, 2, 3, 8, 8},
                                         Problem{{2, 50, 50}, 3, 9, 2, 2}, Problem{{1, 16, 12}, 8, 8, 2, 1},
                                         Problem{{1, 33, 40}, 9, 2, 8, 0}, Problem{{1, 20, 9}, 1, 17, 4, 4},
                                         Problem{{140, 12, 12}, 2, 2, 2, 2},
                                         Problem{{3, 1, 64}, 2, 2, 0, 3}));

TEST(CorrelateMapsCut, DoesNotChangeTheSums) {
  const Problem problem{{3, 30, 20}, 10, 9, 2, 2};
  const auto first = random_maps(problem.extent, 10, 1);
  const auto second = random_maps(problem.extent, 9, 2);
  EXPECT_EQ(correlation(problem, first, second), correlation(problem, first, second, one_by_one_backwards));
}

TEST(CorrelateMapsWithThemselves, AreTheSameAsWithACopy) {
  const Problem problem{{2, 20, 20}, 11, 11, 2, 1};
  const auto maps = random_maps(problem.extent, 11, 1);
  const std::vector<float> copy = maps;
  const auto itself = correlation(problem, maps, maps);
  const auto copied = correlation(problem, maps, copy);
  for (std::size_t index = 0; index < itself.size(); ++index) {
    EXPECT_NEAR(itself[index], copied[index], 1e-3);
  }
}

TEST(CorrelateMapsWithThemselves, AreTransposedAtOppositeLags) {
  const Problem problem{{2, 20, 20}, 11, 11, 2, 1};
  const auto maps = random_maps(problem.extent, 11, 1);
  const auto sums = correlation(problem, maps, maps);
  constexpr int64_t kLags = 15;
  for (int64_t lag = 0; lag < kLags; ++lag) {
    for (int64_t i = 0; i < 11; ++i) {
      for (int64_t j = 0; j < 11; ++j) {
        EXPECT_EQ(sums[(lag * 11 + i) * 11 + j], sums[((kLags - 1 - lag) * 11 + j) * 11 + i]);
      }
    }
  }
}

TEST(CorrelateMapsOfNothing, IsZero) {
  const Problem problem{{0, 5, 5}, 2, 3, 1, 1};
  for (const double sum : correlation(problem, {}, {})) {
    EXPECT_EQ(sum, 0.0);
  }
}

TEST(CorrelateMapsWithNan, SpoilsItsChannelAlone) {
  const Problem problem{{1, 20, 20}, 10, 2, 1, 1};
  auto first = random_maps(problem.extent, 10, 1);
  const auto second = random_maps(problem.extent, 2, 2);
  const auto clean = correlation(problem, first, second);
  first[3 * 400 + 210] = std::numeric_limits<float>::quiet_NaN();
  const auto sums = correlation(problem, first, second);
  for (std::size_t index = 0; index < sums.size(); ++index) {
    if (index / 2 % 10 == 3) {
      EXPECT_TRUE(std::isnan(sums[index]));
    } else {
      EXPECT_EQ(sums[index], clean[index]);
    }
  }
}

}  // namespace
}  // namespace ghostsr
