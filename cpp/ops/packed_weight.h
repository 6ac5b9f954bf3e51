// Weights transformed ahead of time for the Winograd path.
#pragma once

#include "ops/arguments.h"

namespace ghostsr::ops {

// The transformed weight followed by a fingerprint of the values it was made from.
Tensor pack_weight(const Tensor& weight);

// `packed` if it was made from these very values, else a fresh one: a stale weight is never used.
Tensor packed_or_fresh(const Tensor& weight, const OptionalTensor& packed);

// The transformed weight of the convolution that gives the input's gradient.
Tensor pack_transposed_weight(const Tensor& weight);

}  // namespace ghostsr::ops
