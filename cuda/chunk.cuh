// Sixteen bytes of a row: the widest access of a thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <global_memory.cuh>

#include "number.cuh"

namespace ghostsr::cuda {

constexpr int kChunkBytes = 16;

// Elements of a chunk.
template <typename T>
constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));

// Elements between the last 16-byte boundary and `address`.
template <typename T>
__host__ __device__ __forceinline__ int elements_past_boundary(const T* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) % kChunkBytes / sizeof(T));
}

template <typename T>
__device__ __forceinline__ void unpack(const uint4& bits, accumulator_t<T> (&values)[kChunk<T>]) {
  T elements[kChunk<T>];
  memcpy(elements, &bits, kChunkBytes);
#pragma unroll
  for (int index = 0; index < kChunk<T>; ++index) {
    values[index] = widen(elements[index]);
  }
}

template <typename T>
__device__ __forceinline__ uint4 pack(const accumulator_t<T> (&values)[kChunk<T>]) {
  T elements[kChunk<T>];
#pragma unroll
  for (int index = 0; index < kChunk<T>; ++index) {
    elements[index] = narrow<T>(values[index]);
  }
  uint4 bits;
  memcpy(&bits, elements, kChunkBytes);
  return bits;
}

// The chunk of a row that begins at element `first`, which lies on a 16-byte boundary; zero outside the row.
// Elements outside the row are not read, though they share its memory's last 16 bytes.
template <typename T>
__device__ __forceinline__ uint4 read_chunk(const T* row, int width, int first) {
  if (first >= 0 && first <= width - kChunk<T>) {
    return load_chunk(row + first);
  }
  uint4 bits = make_uint4(0, 0, 0, 0);
  if (first > -kChunk<T> && first < width) {
    T elements[kChunk<T>];
    memcpy(elements, &bits, kChunkBytes);
#pragma unroll
    for (int index = 0; index < kChunk<T>; ++index) {
      const int x = first + index;
      if (x >= 0 && x < width) {
        elements[index] = load(row + x);
      }
    }
    memcpy(&bits, elements, kChunkBytes);
  }
  return bits;
}

// The sixteen bytes that begin `offset` elements into the thirty-two of low and high.
template <typename T>
__device__ __forceinline__ uint4 funnel(const uint4& low, const uint4& high, int offset) {
  uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  const int bytes = offset * static_cast<int>(sizeof(T));
#pragma unroll
  for (int index = 0; index < 6; ++index) {
    words[index] = (bytes & 8) != 0 ? words[index + 2] : words[index];
  }
  if constexpr (sizeof(T) <= 4) {
#pragma unroll
    for (int index = 0; index < 5; ++index) {
      words[index] = (bytes & 4) != 0 ? words[index + 1] : words[index];
    }
  }
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int index = 0; index < 4; ++index) {
      words[index] = __funnelshift_r(words[index], words[index + 1], (bytes & 2) * 8);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Elements x .. x + kChunk of a row of any alignment, zero outside it.
template <typename T>
__device__ __forceinline__ uint4 read_window(const T* row, int width, int x) {
  const int offset = (x + elements_past_boundary(row)) & (kChunk<T> - 1);
  const uint4 low = read_chunk(row, width, x - offset);
  if (offset == 0) {
    return low;
  }
  return funnel<T>(low, read_chunk(row, width, x - offset + kChunk<T>), offset);
}

// Writes elements x .. x + kChunk of a row, those inside it. row + x must lie on a 16-byte boundary.
template <typename T>
__device__ __forceinline__ void write_chunk(T* row, int width, int x, const uint4& bits) {
  if (x >= 0 && x <= width - kChunk<T>) {
    store_chunk(row + x, bits);
    return;
  }
  T elements[kChunk<T>];
  memcpy(elements, &bits, kChunkBytes);
#pragma unroll
  for (int index = 0; index < kChunk<T>; ++index) {
    if (x + index >= 0 && x + index < width) {
      store(row + x + index, elements[index]);
    }
  }
}

}  // namespace ghostsr::cuda
