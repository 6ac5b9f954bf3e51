// Choosing the shifts of ghosts, and the gradient of that choice, on CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace ghostsr::cuda {

// Logits [rows, candidates] and optional noise of the same shape, strides in elements. See
// core/shift_selection.h.
template <typename L>
struct SelectionArguments {
  const L* logits;
  int64_t logits_row_step;
  int64_t logits_column_step;
  const L* noise;  // null when there is none
  int64_t noise_row_step;
  int64_t noise_column_step;
  double tau;
  int32_t rows;  // as many as ghosts, or one for all
  int32_t candidates;
  int32_t ghosts;
};

// shift[ghosts, 2] = (dy, dx) of each ghost's largest (logits + noise) / tau. L is float, double, Float16 or
// BFloat16.
template <typename L>
void launch_select_shift(const SelectionArguments<L>& arguments, int64_t* shift, cudaStream_t stream);

// Stores the scores [ghosts, candidates], and in grad_logits [rows, candidates] the straight-through
// gradient.
template <typename L>
void launch_selection_gradient(const SelectionArguments<L>& arguments, const double* scores, L* stored_scores,
                               L* grad_logits, cudaStream_t stream);

}  // namespace ghostsr::cuda
