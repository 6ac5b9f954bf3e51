#pragma once

#include <vector>

#include "ops/arguments.h"

namespace ghostsr::ops {

// The selected (dy, dx) of each ghost, read on the CPU from checked logits.
std::vector<int64_t> selected_shifts(const Tensor& logits, const OptionalTensor& noise, double tau,
                                     int64_t ghosts, int64_t max_shift);

}  // namespace ghostsr::ops
