// What CUDA adds to C++ inside a kernel.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one at a time, so that one copy serves them all. It keeps what the block before left there.
#define __shared__ static

#define threadIdx (host_cuda::thread_index)
#define blockIdx (host_cuda::block_index)

inline void __syncthreads() { host_cuda::wait_for_block(); }

struct alignas(16) uint4 {
  unsigned x;
  unsigned y;
  unsigned z;
  unsigned w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline unsigned __umulhi(unsigned left, unsigned right) {
  return static_cast<unsigned>((static_cast<uint64_t>(left) * right) >> 32U);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned bits) {
  return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32U) | low) >> (bits & 31U));
}
