// Sums over whole maps that the gradients of a ghost layer's small parameters need, on CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include "core/shift_selection.h"
#include "shift_concat_backward.h"

namespace ghostsr::cuda {

// See core/shift_selection.h.
template <typename T>
struct GhostSumArguments {
  Extent extent;
  int32_t ghosts;
  const ChannelLink<accumulator_t<T>>* links;  // [ghosts]
  OutputGradient<T> gradient;
  GhostSum kind;
  int32_t max_shift;          // of the candidates
  accumulator_t<T>* partial;  // [parts, ghosts, width]
};

// Sums for each ghost.
constexpr int64_t ghost_sum_width(GhostSum kind, int64_t max_shift) {
  return kind == GhostSum::candidates ? (2 * max_shift + 1) * (2 * max_shift + 1) : 1;
}

// In how many parts the maps are summed. It depends on the shape and layout alone, so that the sums' bits do
// too; zero for an empty map.
template <typename T>
int64_t ghost_sum_parts(const Extent& extent, int64_t ghosts, const OutputGradient<T>& gradient);

// Queues the partial sums on `stream`. T is float, double, Float16 or BFloat16. Throws when a launch fails.
template <typename T>
void launch_ghost_sum(const GhostSumArguments<T>& arguments, cudaStream_t stream);

// sums[ghost, width] = sum over parts, in order, of partial[part, ghost, width], times the ghost's gain where
// `links` is not null.
template <typename A, typename Sum>
void launch_reduce_parts(const A* partial, int64_t parts, int32_t ghosts, int64_t width,
                         const ChannelLink<A>* links, Sum* sums, cudaStream_t stream);

}  // namespace ghostsr::cuda
