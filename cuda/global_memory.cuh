// Reading and writing maps and tables. Always included as <global_memory.cuh>: tests of the kernels on a
// processor put a watchful one in its place.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ghostsr::cuda {

// By the read-only path, since no kernel writes what it reads.
template <typename T>
__device__ __forceinline__ T load(const T* address) {
  if constexpr (sizeof(T) == 2) {
    T result;
    result.bits = __ldg(reinterpret_cast<const unsigned short*>(address));
    return result;
  } else {
    return __ldg(address);
  }
}

template <typename T>
__device__ __forceinline__ void store(T* address, T value) {
  *address = value;
}

// Sixteen bytes; `address` must lie on a boundary of as many.
template <typename T>
__device__ __forceinline__ uint4 load_chunk(const T* address) {
  return __ldg(reinterpret_cast<const uint4*>(address));
}
// In PTX, because the compiler would cut a plain store in four to share them with a row's ragged end.
template <typename T>
__device__ __forceinline__ void store_chunk(T* address, const uint4& bits) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(address)),
               "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
               : "memory");
}

}  // namespace ghostsr::cuda
