// Torch's own thread pool.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace ghostsr::ops {

// Runs body(begin, end) over the tasks, on torch's threads where the work is worth it.
template <typename Body>
void parallel(int64_t tasks, int64_t elements_per_task, const Body& body) {
  // Waking a thread costs microseconds, in which it could have moved some ten thousand elements.
  constexpr int64_t kElementsPerThread = 16384;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, elements_per_task));
  torch::stable::parallel_for(0, tasks, grain, body);
}

}  // namespace ghostsr::ops
