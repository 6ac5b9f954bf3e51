#pragma once

#include "ops/arguments.h"

namespace ghostsr::ops {

// Queues the selection of checked logits: a table [ghosts, 2] of (dy, dx).
Tensor queue_select_shift(const Tensor& logits, const OptionalTensor& noise, double tau, int64_t ghosts);

}  // namespace ghostsr::ops
