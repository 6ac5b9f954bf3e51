// Fingerprints of the tensors that stay the same from call to call.
#pragma once

#include "core/fingerprint.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// Adds the values of a CPU tensor, its dtype, and how it lies.
void add_constant(Fingerprint& print, const Tensor& tensor);
void add_constant(Fingerprint& print, const OptionalTensor& tensor);

}  // namespace ghostsr::ops
