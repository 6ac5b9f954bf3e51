#include "ops/map_memory.h"

#include <pthread.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <cstdlib>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/layout.h"

namespace ghostsr::ops {
namespace {

constexpr size_t kAlignment = 64;

// Smaller blocks stay with the C library in any case.
constexpr size_t kSmallestPooled = 64 * 1024;

// Of all blocks that are kept and not in use. Some maps of a network at a time, at the tile sizes that fit
// the caches; what is kept longest goes back to the system when more is freed.
constexpr size_t kMostKept = size_t{256} << 20U;

// A kept block serves requests down to this part of its size.
constexpr double kLeastUsed = 0.75;

// A thread's workspace is freed with it; a larger one is freed with its call.
constexpr size_t kLargestKeptWorkspace = size_t{16} << 20U;

void* allocate(size_t bytes) {
  void* block = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (block == nullptr) {
    throw std::bad_alloc();
  }
  return block;
}

class Pool {
 public:
  // Returns a block of at least so many bytes, and sets `bytes` to its size.
  void* take(size_t& bytes) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = by_size_.lower_bound(bytes);
      if (found != by_size_.end() &&
          static_cast<double>(bytes) >= kLeastUsed * static_cast<double>(found->first)) {
        const Blocks::iterator block = found->second;
        void* data = block->data;
        bytes = block->bytes;
        kept_bytes_ -= bytes;
        by_size_.erase(found);
        kept_.erase(block);
        return data;
      }
    }
    try {
      return allocate(bytes);
    } catch (const std::bad_alloc&) {
      release();
      return allocate(bytes);
    }
  }

  void give_back(void* data, size_t bytes) noexcept {
    Blocks freed;
    try {
      freed.push_front({data, bytes});
      const std::lock_guard lock(mutex_);
      if (bytes <= kMostKept) {
        // Maps of other sizes than before are in use now; the oldest blocks make room for theirs.
        while (kept_bytes_ + bytes > kMostKept) {
          kept_bytes_ -= kept_.back().bytes;
          by_size_.erase(by_size_.lower_bound(kept_.back().bytes));  // the oldest of its size
          freed.splice(freed.end(), kept_, std::prev(kept_.end()));
        }
        by_size_.emplace(bytes, freed.begin());
        kept_.splice(kept_.begin(), freed, freed.begin());
        kept_bytes_ += bytes;
      }
    } catch (const std::bad_alloc&) {
      if (freed.empty()) {
        std::free(data);
      }
    }
    free_all(freed);
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  // Frees what is kept, and returns its bytes.
  size_t release() {
    Blocks freed;
    {
      const std::lock_guard lock(mutex_);
      freed.swap(kept_);
      by_size_.clear();
      kept_bytes_ = 0;
    }
    return free_all(freed);
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
  };
  using Blocks = std::list<Block>;

  static size_t free_all(const Blocks& blocks) {
    size_t bytes = 0;
    for (const Block& block : blocks) {
      bytes += block.bytes;
      std::free(block.data);
    }
    return bytes;
  }

  std::mutex mutex_;
  Blocks kept_;                                      // the last one given back first
  std::multimap<size_t, Blocks::iterator> by_size_;  // of one size, the oldest first
  size_t kept_bytes_ = 0;
};

// Never destroyed: maps may be freed while the process ends.
Pool& pool() {
  static auto* const kept = [] {
    auto* made = new Pool();
    // A child would wait for ever for a lock that another thread held.
    pthread_atfork([] { pool().lock(); }, [] { pool().unlock(); }, [] { pool().unlock(); });
    return made;
  }();
  return *kept;
}

struct Workspace {
  struct Free {
    void operator()(float* block) const { std::free(block); }
  };
  std::unique_ptr<float, Free> block;
  size_t floats = 0;
};

thread_local Workspace kept_workspace;

Tensor empty_map_like(const Tensor& like, int64_t channels) {
  check_map("like", like);
  if (channels < 0) {
    fail("channels: found " + std::to_string(channels) + "; at least 0 is needed");
  }
  return cpu_map({like.size(0), channels, like.size(2), like.size(3)}, true, like);
}

int64_t release_memory() { return static_cast<int64_t>(pool().release()); }

}  // namespace

Tensor cpu_map(const IntList& size, bool channels_last, const Tensor& like) {
  const std::array<size_t, 4> order =
      channels_last ? std::array<size_t, 4>{1, 3, 2, 0} : std::array<size_t, 4>{3, 2, 1, 0};
  IntList strides(4);
  int64_t elements = 1;
  int64_t map_bytes = 0;
  bool fits = true;
  for (const size_t axis : order) {
    strides[axis] = elements;
    fits = fits && !__builtin_mul_overflow(elements, size[axis], &elements);
  }
  if (!fits || __builtin_mul_overflow(elements, static_cast<int64_t>(like.element_size()), &map_bytes)) {
    throw std::bad_alloc();
  }
  auto bytes = static_cast<size_t>(map_bytes);
  if (bytes < kSmallestPooled) {
    return empty_map(size, channels_last, like);
  }
  void* block = pool().take(bytes);
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
  return torch::stable::from_blob(block, size, strides, cpu, like.scalar_type(),
                                  [bytes](void* data) { pool().give_back(data, bytes); });
}

float* workspace(size_t floats) {
  if (kept_workspace.floats < floats) {
    kept_workspace = {};
    kept_workspace.block.reset(static_cast<float*>(allocate(floats * sizeof(float))));
    kept_workspace.floats = floats;
  }
  return kept_workspace.block.get();
}

void end_workspace() {
  if (kept_workspace.floats * sizeof(float) > kLargestKeptWorkspace) {
    kept_workspace = {};
  }
}

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CompositeExplicitAutograd, library) {
  library.impl("release_memory", GHOSTSR_BOX(&release_memory));
}

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) { library.impl("empty_map", GHOSTSR_BOX(&empty_map_like)); }

}  // namespace ghostsr::ops
