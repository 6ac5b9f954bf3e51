// Reads lines of "major minor threads registers shared_bytes" and prints, for each, the share of a
// multiprocessor's threads that such blocks occupy, by the calculator of the CUDA toolkit.
#include <cuda_occupancy.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>

namespace {

struct Multiprocessor {
  int major;
  int minor;
  int threads;
  int shared_kib;
  int reserved_kib;  // of shared memory, for each block
};

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
constexpr std::array<Multiprocessor, 7> kMultiprocessors = {{
    {7, 5, 1024, 64, 0},
    {8, 0, 2048, 164, 1},
    {8, 6, 1536, 100, 1},
    {8, 9, 1536, 100, 1},
    {9, 0, 2048, 228, 1},
    {10, 0, 2048, 228, 1},
    {12, 0, 1536, 100, 1},
}};

double occupancy(const Multiprocessor& multiprocessor, int threads, int registers, int shared_bytes) {
  cudaOccDeviceProp properties{};
  properties.computeMajor = multiprocessor.major;
  properties.computeMinor = multiprocessor.minor;
  properties.maxThreadsPerBlock = 1024;
  properties.maxThreadsPerMultiprocessor = multiprocessor.threads;
  properties.regsPerBlock = 65536;
  properties.regsPerMultiprocessor = 65536;
  properties.warpSize = 32;
  properties.sharedMemPerBlock = 48 * 1024;
  properties.sharedMemPerMultiprocessor = static_cast<size_t>(multiprocessor.shared_kib) * 1024;
  properties.numSms = 1;
  properties.sharedMemPerBlockOptin = properties.sharedMemPerMultiprocessor - 1024;
  properties.reservedSharedMemPerBlock = static_cast<size_t>(multiprocessor.reserved_kib) * 1024;
  cudaOccFuncAttributes kernel{};
  kernel.maxThreadsPerBlock = threads;
  kernel.numRegs = registers;
  kernel.sharedSizeBytes = static_cast<size_t>(shared_bytes);
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.maxDynamicSharedSizeBytes = properties.sharedMemPerBlockOptin;
  kernel.numBlockBarriers = 1;
  const cudaOccDeviceState state{};
  cudaOccResult result{};
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &properties, &kernel, &state, threads, 0) !=
      CUDA_OCC_SUCCESS) {
    std::cerr << "the occupancy calculator refuses compute capability " << multiprocessor.major << "."
              << multiprocessor.minor << "\n";
    std::exit(1);
  }
  return static_cast<double>(result.activeBlocksPerMultiprocessor) * threads / multiprocessor.threads;
}

}  // namespace

int main() {
  int major = 0;
  int minor = 0;
  int threads = 0;
  int registers = 0;
  int shared_bytes = 0;
  while (std::cin >> major >> minor >> threads >> registers >> shared_bytes) {
    const auto* found =
        std::find_if(kMultiprocessors.begin(), kMultiprocessors.end(), [&](const Multiprocessor& candidate) {
          return candidate.major == major && candidate.minor == minor;
        });
    if (found == kMultiprocessors.end()) {
      std::cerr << "compute capability: found " << major << "." << minor << ", which is not in the table\n";
      return 1;
    }
    std::cout << occupancy(*found, threads, registers, shared_bytes) << "\n";
  }
  return 0;
}
