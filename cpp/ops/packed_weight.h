// Weights laid out ahead of time for our own paths.
#pragma once

#include "ops/arguments.h"

namespace ghostsr::ops {

// The packed weight followed by a fingerprint of the values it was made from.
Tensor pack_weight(const Tensor& weight, int64_t groups);

// `packed` if it was made from these very values, else a fresh one: a stale weight is never used.
Tensor packed_or_fresh(const Tensor& weight, int64_t groups, const OptionalTensor& packed);

// The packed weight of the convolution that gives the input's gradient.
Tensor pack_transposed_weight(const Tensor& weight, int64_t groups);

}  // namespace ghostsr::ops
