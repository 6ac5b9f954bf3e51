#include "core/shift_selection.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/half.h"
#include "core/simd/kernels.h"

namespace ghostsr {
namespace {

// Enough parts to keep every core of a large machine busy, few enough to keep the partial sums small.
constexpr int64_t kMostParts = 128;

double perturbed(const double* logits, const double* noise, double tau, int64_t index) {
  return (logits[index] + (noise == nullptr ? 0.0 : noise[index])) / tau;
}

}  // namespace

template <typename T>
int64_t ghost_sum_width(const GhostSumParams<T>& params) {
  const int64_t window = 2 * int64_t{params.max_shift} + 1;
  return params.kind == GhostSum::candidates ? window * window : 1;
}

template <typename T>
int64_t ghost_sum_parts(const GhostSumParams<T>& params) {
  return std::min(kMostParts, params.extent.batch * params.extent.height);
}

template <typename T>
void ghost_sum(const GhostSumParams<T>& params, int64_t begin, int64_t end, double* partial) {
  const int64_t rows = params.extent.batch * params.extent.height;
  const int64_t parts = ghost_sum_parts(params);
  const int64_t width = ghost_sum_width(params);
  int64_t margin = params.kind == GhostSum::candidates ? params.max_shift : 0;
  if (params.kind == GhostSum::chosen) {
    for (int64_t ghost = 0; ghost < params.ghosts; ++ghost) {
      margin = std::max<int64_t>(margin, std::abs(params.origins[params.ghost_outputs[ghost]].dx));
    }
  }
  std::vector<accumulator_t<T>> workspace(params.extent.width +
                                          (2 * params.max_shift + 1) * (params.extent.width + 2 * margin));
  for (int64_t part = begin; part < end; ++part) {
    for (int64_t ghost = 0; ghost < params.ghosts; ++ghost) {
      double* sums = partial + (part * params.ghosts + ghost) * width;
      std::fill_n(sums, width, 0.0);
      const int64_t first = part * rows / parts;
      const int64_t last = (part + 1) * rows / parts;
      GHOSTSR_CALL_KERNEL(ghost_sum_rows, params, ghost, first, last, workspace.data(), sums);
    }
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
  double largest = -INFINITY;
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
