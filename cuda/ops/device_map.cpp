#include "device_map.h"

#include <limits>
#include <string>

namespace ghostsr::ops {

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

cuda::IntegerTable integer_table(const Tensor& table) {
  const bool pairs = table.dim() == 2;
  return {table.const_data_ptr(), table.stride(0), pairs ? table.stride(1) : 0,
          table.scalar_type() == ScalarType::Long};
}

int32_t count_of(const char* argument, int64_t value) {
  if (value > std::numeric_limits<int32_t>::max()) {
    fail(std::string(argument) + ": found " + std::to_string(value) + "; less than 2^31 is allowed");
  }
  return static_cast<int32_t>(value);
}

}  // namespace ghostsr::ops
