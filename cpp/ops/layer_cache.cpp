#include "ops/layer_cache.h"

#include <pthread.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <cstring>
#include <list>
#include <random>
#include <unordered_map>
#include <utility>

#include "ops/boxed.h"
#include "ops/checks.h"

namespace ghostsr::ops {
namespace {

using Number = uint64_t;

constexpr std::array<char, 8> kMark{'g', 'h', 'o', 's', 't', 's', 'r', '1'};
constexpr int64_t kHandleBytes = sizeof(kMark) + sizeof(Number);

// Caches of handles that came out of files have no owner who would end them.
constexpr size_t kMostAdopted = 1024;

class Registry {
 public:
  Number add() {
    const std::lock_guard lock(mutex_);
    Number number = 0;
    do {
      number = random_();
    } while (owned_.contains(number));
    owned_.emplace(number, std::make_shared<LayerCache>());
    return number;
  }

  void remove(Number number) {
    std::shared_ptr<LayerCache> removed;  // freed behind the lock
    const std::lock_guard lock(mutex_);
    if (const auto found = owned_.find(number); found != owned_.end()) {
      removed = std::move(found->second);
      owned_.erase(found);
    }
  }

  std::shared_ptr<LayerCache> find(Number number) {
    const std::lock_guard lock(mutex_);
    if (const auto found = owned_.find(number); found != owned_.end()) {
      return found->second;
    }
    return adopt(number);
  }

  // Of the registry and of all its caches.
  void lock() {
    mutex_.lock();
    for_each_cache([](LayerCache& cache) { cache.lock(); });
  }
  void unlock() {
    for_each_cache([](LayerCache& cache) { cache.unlock(); });
    mutex_.unlock();
  }

 private:
  template <typename Function>
  void for_each_cache(const Function& function) {
    for (const auto& [number, cache] : owned_) {
      function(*cache);
    }
    for (const auto& [number, cache] : adopted_) {
      function(*cache.first);
    }
  }

  std::shared_ptr<LayerCache> adopt(Number number) {
    if (const auto found = adopted_.find(number); found != adopted_.end()) {
      order_.splice(order_.begin(), order_, found->second.second);
      return found->second.first;
    }
    if (adopted_.size() >= kMostAdopted) {
      adopted_.erase(order_.back());
      order_.pop_back();
    }
    order_.push_front(number);
    return adopted_.emplace(number, std::pair(std::make_shared<LayerCache>(), order_.begin()))
        .first->second.first;
  }

  std::mutex mutex_;
  std::mt19937_64 random_{std::random_device()()};
  std::unordered_map<Number, std::shared_ptr<LayerCache>> owned_;
  std::list<Number> order_;  // of the adopted ones, the last used first
  std::unordered_map<Number, std::pair<std::shared_ptr<LayerCache>, std::list<Number>::iterator>> adopted_;
};

// Never destroyed: handles may be freed while the process ends.
Registry& registry() {
  static auto* const kept = [] {
    auto* made = new Registry();
    // A child would wait for ever for a lock that another thread held.
    pthread_atfork([] { registry().lock(); }, [] { registry().unlock(); }, [] { registry().unlock(); });
    return made;
  }();
  return *kept;
}

Tensor make_handle() {
  const Number number = registry().add();
  auto* bytes = new std::array<char, kHandleBytes>();
  std::memcpy(bytes->data(), kMark.data(), sizeof(kMark));
  std::memcpy(bytes->data() + sizeof(kMark), &number, sizeof(number));
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
  return torch::stable::from_blob(bytes, {kHandleBytes}, {1}, cpu, ScalarType::Byte, [number](void* data) {
    registry().remove(number);
    delete static_cast<std::array<char, kHandleBytes>*>(data);
  });
}

int64_t cached_bytes(const Tensor& cache) { return cache_of(cache)->bytes(); }

}  // namespace

std::shared_ptr<LayerCache> cache_of(const OptionalTensor& handle) {
  if (!handle.has_value()) {
    return nullptr;
  }
  if (handle->scalar_type() != ScalarType::Byte || !handle->is_cpu() || handle->numel() != kHandleBytes ||
      !handle->is_contiguous()) {
    fail("cache: found shape " + size_text(*handle) + "; what layer_cache() returned is needed");
  }
  const auto* bytes = static_cast<const char*>(handle->const_data_ptr());
  if (std::memcmp(bytes, kMark.data(), sizeof(kMark)) != 0) {
    fail("cache: found other bytes than those of a handle; what layer_cache() returned is needed");
  }
  Number number = 0;
  std::memcpy(&number, bytes + sizeof(kMark), sizeof(number));
  return registry().find(number);
}

std::shared_ptr<const PackedWeight> LayerCache::packed_weight(const Fingerprint& made_from) const {
  const std::lock_guard lock(mutex_);
  return packed_weight_ != nullptr && packed_weight_->made_from == made_from ? packed_weight_ : nullptr;
}

std::shared_ptr<const LayerPlan> LayerCache::plan(const Fingerprint& made_from) const {
  const std::lock_guard lock(mutex_);
  return plan_ != nullptr && plan_->made_from == made_from ? plan_ : nullptr;
}

void LayerCache::keep(std::shared_ptr<const PackedWeight> packed_weight) {
  // The last one is freed behind the lock.
  const std::lock_guard lock(mutex_);
  last_seen_ = packed_weight->made_from;
  packed_weight_.swap(packed_weight);
}

void LayerCache::keep(std::shared_ptr<const LayerPlan> plan) {
  const std::lock_guard lock(mutex_);
  plan_.swap(plan);
}

bool LayerCache::sees_again(const Fingerprint& weight) {
  const std::lock_guard lock(mutex_);
  return std::exchange(last_seen_, weight) == weight;
}

int64_t LayerCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return packed_weight_ == nullptr
             ? 0
             : packed_weight_->data.numel() * static_cast<int64_t>(packed_weight_->data.element_size());
}

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CompositeExplicitAutograd, library) {
  library.impl("layer_cache", GHOSTSR_BOX(&make_handle));
}

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) { library.impl("cached_bytes", GHOSTSR_BOX(&cached_bytes)); }

}  // namespace ghostsr::ops
