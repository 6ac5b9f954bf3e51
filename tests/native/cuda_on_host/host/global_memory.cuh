// Takes the place of the kernels' own global_memory.cuh: the same functions, watched by the machine.
#pragma once

#include <cuda_runtime.h>

namespace ghostsr::cuda {

template <typename T>
T load(const T* address) {
  host_cuda::check_read(address, sizeof(T));
  return *address;
}

template <typename T>
void store(T* address, T value) {
  host_cuda::check_write(address, sizeof(T));
  *address = value;
}

template <typename T>
uint4 load_chunk(const T* address) {
  uint4 bits;
  host_cuda::check_read(address, sizeof(bits));
  std::memcpy(&bits, address, sizeof(bits));
  return bits;
}

template <typename T>
void store_chunk(T* address, const uint4& bits) {
  host_cuda::check_write(address, sizeof(bits));
  std::memcpy(address, &bits, sizeof(bits));
}

}  // namespace ghostsr::cuda
