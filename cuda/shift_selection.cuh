#pragma once

#include <global_memory.cuh>

#include "number.cuh"
#include "shift_selection.h"
#include "tiling.cuh"

namespace ghostsr::cuda {

template <typename L>
__device__ __forceinline__ double perturbed(const SelectionArguments<L>& arguments, int32_t row,
                                            int32_t candidate) {
  double value = static_cast<double>(widen(
      load(arguments.logits + row * arguments.logits_row_step + candidate * arguments.logits_column_step)));
  if (arguments.noise != nullptr) {
    value += static_cast<double>(widen(
        load(arguments.noise + row * arguments.noise_row_step + candidate * arguments.noise_column_step)));
  }
  return value / arguments.tau;
}

__device__ __forceinline__ bool is_nan(double value) { return value != value; }

template <typename L>
__global__ void __launch_bounds__(kThreads)
    select_shift(const SelectionArguments<L> arguments, int32_t window, int64_t* shift) {
  const auto ghost = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (ghost >= arguments.ghosts) {
    return;
  }
  const int32_t row = arguments.rows == arguments.ghosts ? ghost : 0;
  int32_t best = 0;
  double largest = perturbed(arguments, row, 0);
  for (int32_t candidate = 1; candidate < arguments.candidates && !is_nan(largest); ++candidate) {
    const double value = perturbed(arguments, row, candidate);
    if (value > largest || is_nan(value)) {
      best = candidate;
      largest = value;
    }
  }
  store(shift + 2 * int64_t{ghost}, int64_t{best / window - window / 2});
  store(shift + 2 * int64_t{ghost} + 1, int64_t{best % window - window / 2});
}

// A block for each row of logits, a thread for each candidate.
template <typename L>
__global__ void __launch_bounds__(kThreads)
    selection_gradient(const SelectionArguments<L> arguments, const double* scores, L* stored_scores,
                       L* grad_logits) {
  __shared__ double values[kThreads];
  __shared__ double products[kThreads];
  using A = accumulator_t<L>;
  const auto row = static_cast<int32_t>(blockIdx.x);
  const auto candidate = static_cast<int32_t>(threadIdx.x);
  const int32_t candidates = arguments.candidates;
  const bool exists = candidate < candidates;
  double score = 0;
  if (exists) {
    const int32_t first = arguments.rows == arguments.ghosts ? row : 0;
    const int32_t last = arguments.rows == arguments.ghosts ? row + 1 : arguments.ghosts;
    for (int32_t ghost = first; ghost < last; ++ghost) {
      const double ghost_score = load(scores + int64_t{ghost} * candidates + candidate);
      store(stored_scores + int64_t{ghost} * candidates + candidate, narrow<L>(static_cast<A>(ghost_score)));
      score += ghost_score;
    }
    values[candidate] = perturbed(arguments, row, candidate);
  }
  __syncthreads();
  double largest = values[0];
  for (int32_t other = 1; other < candidates; ++other) {
    largest = values[other] > largest ? values[other] : largest;
  }
  const double weight = exists ? exp(values[candidate] - largest) : 0.0;
  __syncthreads();
  values[candidate] = weight;
  products[candidate] = weight * score;
  __syncthreads();
  double total = 0;
  double mean = 0;
  for (int32_t other = 0; other < candidates; ++other) {
    total += values[other];
    mean += products[other];
  }
  if (exists) {
    store(grad_logits + int64_t{row} * candidates + candidate,
          narrow<L>(static_cast<A>(weight / total * (score - mean / total) / arguments.tau)));
  }
}

template <typename L>
void launch_select_shift(const SelectionArguments<L>& arguments, int64_t* shift, cudaStream_t stream) {
  int32_t window = 1;
  while (window * window < arguments.candidates) {
    window += 2;
  }
  launch("select_shift", select_shift<L>, divide_up(arguments.ghosts, kThreads), kThreads, stream, arguments,
         window, shift);
}

template <typename L>
void launch_selection_gradient(const SelectionArguments<L>& arguments, const double* scores, L* stored_scores,
                               L* grad_logits, cudaStream_t stream) {
  launch("selection_gradient", selection_gradient<L>, arguments.rows, kThreads, stream, arguments, scores,
         stored_scores, grad_logits);
}

}  // namespace ghostsr::cuda
