// Sums over whole maps that the gradients of a ghost layer's small parameters need.
#pragma once

#include <cstdint>

#include "core/geometry.h"
#include "core/shift_concat.h"

namespace ghostsr {

// For every ghost g, with D = residual_scale * grad_output of its channel * the activation's derivative:
//   candidates: the sum of D[y, x] * Y0[source, y + dy_k, x + dx_k] for each candidate shift k of
//               -max_shift..max_shift;
//   chosen:     the same for the ghost's own shift alone;
//   total:      the sum of D;
//   affine:     chosen, then total.
// None of them holds the gain.
enum class GhostSum { candidates, chosen, total, affine };

template <typename T>
struct GhostSumParams {
  Extent extent;
  int64_t intrinsic_channels;
  int64_t ghosts;
  const ChannelOrigin* origins;
  const int64_t* ghost_outputs;  // [ghosts], the output channel of each
  int32_t radius;                // largest |dy| or |dx| among the origins
  const T* grad_output;
  Strides grad_output_strides;
  Activation activation;
  MaskSource mask_source;
  const T* output;
  Strides output_strides;
  const T* intrinsic;
  Strides intrinsic_strides;
  double residual_scale;
  GhostSum kind;
  int32_t max_shift;  // of the candidates
};

// Number of sums per ghost.
template <typename T>
int64_t ghost_sum_width(const GhostSumParams<T>& params);

// The rows are cut in this many parts. The cut depends on the shape alone, so that the sums do not depend on
// the number of threads.
template <typename T>
int64_t ghost_sum_parts(const GhostSumParams<T>& params);

// Adds up the parts [begin, end) into partial[part][ghost][width].
template <typename T>
void ghost_sum(const GhostSumParams<T>& params, int64_t begin, int64_t end, double* partial);

// Adds the parts in order: sums[count] = sum over parts of partial[part][count].
void reduce_parts(const double* partial, int64_t parts, int64_t count, double* sums);

// The index of the largest (logits + noise) / tau of each row; noise may be null. Ties go to the first, a NaN
// wins.
void select_candidate(const double* logits, const double* noise, double tau, int64_t rows, int64_t candidates,
                      int64_t* selected);

// Straight-through gradient of one row of logits: p * (scores - sum_j p_j * scores_j) / tau with
// p = softmax((logits + noise) / tau).
void selection_gradient(const double* logits, const double* noise, double tau, const double* scores,
                        int64_t candidates, double* gradient);

}  // namespace ghostsr
