// Weights laid out ahead of time for our own paths.
#pragma once

#include <memory>

#include "core/fingerprint.h"
#include "ops/arguments.h"
#include "ops/layer_cache.h"

namespace ghostsr::ops {

// Of a weight's values, of how they lie and of how they are grouped, and of the pixel shuffle behind them.
Fingerprint fingerprint_of(const Tensor& weight, int64_t groups, int64_t shuffle);

// Made from one copy of the weight, whoever writes to it meanwhile.
std::shared_ptr<const PackedWeight> pack_weight(const Tensor& weight, int64_t groups, int64_t shuffle);

// The packed weight of the convolution that gives the input's gradient.
Tensor pack_transposed_weight(const Tensor& weight, int64_t groups);

// Bytes of what pack_weight() keeps.
int64_t packed_bytes(const Tensor& weight, int64_t groups);

}  // namespace ghostsr::ops
