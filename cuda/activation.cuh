// Activations of a kind known at run time; see core/activation.h.
#pragma once

#include <cuda_runtime.h>

#include "core/activation.h"

namespace ghostsr::cuda {

template <typename A>
__device__ __forceinline__ A activate(ActivationKind kind, A value, A slope) {
  return kind == ActivationKind::none   ? value
         : kind == ActivationKind::relu ? (value < A(0) ? A(0) : value)
                                        : (value > A(0) ? value : value * slope);
}

template <typename A>
__device__ __forceinline__ A activation_gradient(ActivationKind kind, A seen, A gradient, A slope) {
  return kind == ActivationKind::relu ? (seen <= A(0) ? A(0) : gradient)
                                      : (seen > A(0) ? gradient : gradient * slope);
}

}  // namespace ghostsr::cuda
