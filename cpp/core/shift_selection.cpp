#include "core/shift_selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/half.h"
#include "core/simd/block_sizes.h"
#include "core/simd/kernels.h"

namespace ghostsr {
namespace {

// Enough parts to keep every core of a large machine busy, few enough to keep the partial sums small.
constexpr int64_t kMostParts = 128;

double perturbed(const double* logits, const double* noise, double tau, int64_t index) {
  return (logits[index] + (noise == nullptr ? 0.0 : noise[index])) / tau;
}

template <typename T>
bool channels_innermost(const GhostSumParams<T>& params) {
  return params.grad_output_strides.channel == 1 &&
         (params.intrinsic == nullptr || params.intrinsic_strides.channel == 1) &&
         (params.output == nullptr || params.output_strides.channel == 1) &&
         // A map of one column or one channel has unit stride both ways; rows are then the longer run.
         params.grad_output_strides.x != 1;
}

// The largest distance between a gradient and the intrinsic row or column that is multiplied with it.
template <typename T>
int64_t largest_radius(const GhostSumParams<T>& params) {
  return params.kind == GhostSum::candidates ? std::max(params.max_shift, params.radius) : params.radius;
}

template <typename T>
void ghost_sum_by_rows(const GhostSumParams<T>& params, int64_t begin, int64_t end, double* partial) {
  const int64_t rows = params.extent.batch * params.extent.height;
  const int64_t parts = ghost_sum_parts(params);
  const int64_t width = ghost_sum_width(params);
  const int64_t margin = largest_radius(params);
  std::vector<accumulator_t<T>> workspace(params.extent.width +
                                          (2 * params.max_shift + 1) * (params.extent.width + 2 * margin));
  for (int64_t part = begin; part < end; ++part) {
    for (int64_t ghost = 0; ghost < params.ghosts; ++ghost) {
      double* sums = partial + (part * params.ghosts + ghost) * width;
      std::fill_n(sums, width, 0.0);
      const int64_t first = part * rows / parts;
      const int64_t last = (part + 1) * rows / parts;
      shift_kernels<T>(kernels()).sum_rows(params, ghost, first, last, workspace.data(), sums);
    }
  }
}

template <typename T>
void ghost_sum_by_pixels(const GhostSumParams<T>& params, int64_t begin, int64_t end, double* partial) {
  const int64_t rows = params.extent.batch * params.extent.height;
  const int64_t parts = ghost_sum_parts(params);
  const int64_t width = ghost_sum_width(params);
  const int64_t radius = largest_radius(params);
  std::vector<accumulator_t<T>> workspace(
      ghost_sum_workspace(params.intrinsic_channels, params.intrinsic_channels + params.ghosts, radius));
  const int64_t count = params.ghosts * width;
  std::vector<double> lanes(count * kGroup);
  for (int64_t part = begin; part < end; ++part) {
    std::fill(lanes.begin(), lanes.end(), 0.0);
    shift_kernels<T>(kernels()).sum_pixels(params, radius, width, part * rows / parts,
                                           (part + 1) * rows / parts, workspace.data(), lanes.data());
    for (int64_t index = 0; index < count; ++index) {
      const double* from = lanes.data() + index * kGroup;
      partial[part * count + index] = std::accumulate(from, from + kGroup, 0.0);
    }
  }
}

}  // namespace

template <typename T>
int64_t ghost_sum_width(const GhostSumParams<T>& params) {
  const int64_t window = 2 * int64_t{params.max_shift} + 1;
  switch (params.kind) {
    case GhostSum::candidates:
      return window * window;
    case GhostSum::affine:
      return 2;
    case GhostSum::chosen:
    case GhostSum::total:
      return 1;
  }
  return 0;
}

template <typename T>
int64_t ghost_sum_parts(const GhostSumParams<T>& params) {
  return std::min(kMostParts, params.extent.batch * params.extent.height);
}

template <typename T>
void ghost_sum(const GhostSumParams<T>& params, int64_t begin, int64_t end, double* partial) {
  if (channels_innermost(params)) {
    ghost_sum_by_pixels(params, begin, end, partial);
  } else {
    ghost_sum_by_rows(params, begin, end, partial);
  }
}

void reduce_parts(const double* partial, int64_t parts, int64_t count, double* sums) {
  std::fill_n(sums, count, 0.0);
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t index = 0; index < count; ++index) {
      sums[index] += partial[part * count + index];
    }
  }
}

void select_candidate(const double* logits, const double* noise, double tau, int64_t rows, int64_t candidates,
                      int64_t* selected) {
  for (int64_t row = 0; row < rows; ++row) {
    const double* row_logits = logits + row * candidates;
    const double* row_noise = noise == nullptr ? nullptr : noise + row * candidates;
    int64_t best = 0;
    double largest = perturbed(row_logits, row_noise, tau, 0);
    for (int64_t index = 1; index < candidates && !std::isnan(largest); ++index) {
      const double value = perturbed(row_logits, row_noise, tau, index);
      if (value > largest || std::isnan(value)) {
        best = index;
        largest = value;
      }
    }
    selected[row] = best;
  }
}

void selection_gradient(const double* logits, const double* noise, double tau, const double* scores,
                        int64_t candidates, double* gradient) {
  std::vector<double> probability(candidates);
  double largest = -std::numeric_limits<double>::infinity();
  for (int64_t index = 0; index < candidates; ++index) {
    probability[index] = perturbed(logits, noise, tau, index);
    largest = std::max(largest, probability[index]);
  }
  double total = 0;
  for (double& value : probability) {
    value = std::exp(value - largest);
    total += value;
  }
  double mean = 0;
  for (int64_t index = 0; index < candidates; ++index) {
    probability[index] /= total;
    mean += probability[index] * scores[index];
  }
  for (int64_t index = 0; index < candidates; ++index) {
    gradient[index] = probability[index] * (scores[index] - mean) / tau;
  }
}

#define GHOSTSR_INSTANTIATE(T)                                \
  template int64_t ghost_sum_width(const GhostSumParams<T>&); \
  template int64_t ghost_sum_parts(const GhostSumParams<T>&); \
  template void ghost_sum(const GhostSumParams<T>&, int64_t, int64_t, double*);

GHOSTSR_INSTANTIATE(float)
GHOSTSR_INSTANTIATE(double)
GHOSTSR_INSTANTIATE(Float16)
GHOSTSR_INSTANTIATE(BFloat16)

}  // namespace ghostsr
