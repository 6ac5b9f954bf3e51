// The part of CUDA's runtime that ghostsr's kernels and launches use, for host_cuda's machine.
#pragma once

#include <tuple>

#include "machine.h"

using cudaStream_t = void*;

enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  dim3() = default;
  explicit dim3(unsigned x_value) : x(x_value) {}
};

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  cudaStream_t stream;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  if (config->gridDim.x == 0 || config->gridDim.x > 0x7fffffffU || config->blockDim.x == 0 ||
      config->blockDim.x > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  // By value, as parameters reach a device.
  const std::tuple<Parameters...> parameters(arguments...);
  host_cuda::run_grid(config->gridDim.x, config->blockDim.x, [&] { std::apply(kernel, parameters); });
  return cudaSuccess;
}
