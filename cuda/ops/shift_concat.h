#pragma once

#include "ops/arguments.h"

namespace ghostsr::ops {

// Queues the epilogue of checked arguments into a new map. `shift` stands in for that of the tables.
Tensor queue_shift_concat(const Tensor& intrinsic, const GhostTables& tables, const Tensor& shift, bool relu,
                          const OptionalTensor& residual, double residual_scale, bool channels_last);

}  // namespace ghostsr::ops
