// Calling a template for the dtype of a tensor.
#pragma once

#include "core/half.h"
#include "ops/checks.h"

namespace ghostsr::ops {

// Calls function(T()) with the kernels' type for the dtype of the map.
template <typename Function>
auto dispatch_floating(ScalarType type, const Function& function) {
  switch (type) {
    case ScalarType::Float:
      return function(float());
    case ScalarType::Double:
      return function(double());
    case ScalarType::Half:
      return function(Float16());
    case ScalarType::BFloat16:
      return function(BFloat16());
    default:
      fail("dtype: float32, float64, float16 or bfloat16 is allowed");
  }
}

// The same for the dtypes of our own convolutions.
template <typename Function>
auto dispatch_fused(ScalarType type, const Function& function) {
  return type == ScalarType::BFloat16 ? function(BFloat16()) : function(float());
}

template <typename T>
const T* data_of(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
const T* data_of(const OptionalTensor& tensor) {
  return tensor.has_value() ? data_of<T>(*tensor) : nullptr;
}

template <typename T>
T* mutable_data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace ghostsr::ops
