#pragma once

#include "device_map.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// Queues the epilogue of checked arguments into a new map. `shift` stands in for that of the tables; a bias
// of the convolution that is still to be added may be given.
Tensor queue_shift_concat(const Tensor& intrinsic, const OptionalTensor& convolution_bias,
                          const GhostTables& tables, const Tensor& shift, const LayerActivation& activation,
                          const OptionalTensor& residual, double residual_scale, bool channels_last);

}  // namespace ghostsr::ops
