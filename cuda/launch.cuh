// Starting kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace ghostsr::cuda {

constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max();

// Starts `kernel` on `blocks` blocks and names it in the error when the launch fails. No block, no launch.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
            const Arguments&... arguments) {
  if (blocks == 0) {
    return;
  }
  if (blocks > kMostBlocks) {
    throw std::runtime_error("ghostsr: " + std::string(name) + ": found " + std::to_string(blocks) +
                             " blocks of work; at most " + std::to_string(kMostBlocks) +
                             " fit one launch, so the map is too large");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  if (error != cudaSuccess) {
    // Taken off the runtime's own record, or the next caller would be blamed for it.
    cudaGetLastError();
    throw std::runtime_error("ghostsr: launching " + std::string(name) + ": " + cudaGetErrorString(error));
  }
}

// Starts a kernel whose work is `blocks_per_image` blocks for each image of a batch, in as many launches as
// the grid's limit asks for: call(first_image, blocks) is one of them.
template <typename Call>
void launch_in_batches(int64_t images, int64_t blocks_per_image, const Call& call) {
  const int64_t most_images = blocks_per_image > kMostBlocks ? 1 : kMostBlocks / blocks_per_image;
  for (int64_t first = 0; first < images; first += most_images) {
    const int64_t count = images - first < most_images ? images - first : most_images;
    call(first, count * blocks_per_image);
  }
}

inline int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace ghostsr::cuda
