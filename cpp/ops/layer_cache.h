// What the operators keep for a layer between its calls. It never changes a result: whatever is kept carries
// a fingerprint of the constants that it was made from, which every call compares with those it is given.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/activation.h"
#include "core/channel_plan.h"
#include "core/fingerprint.h"
#include "core/fused/stages.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// A weight laid out for our own path.
struct PackedWeight {
  Fingerprint made_from;
  Tensor data;
};

// What follows the convolution, resolved for each channel.
struct LayerPlan {
  Fingerprint made_from;
  ChannelPlan channels;
  std::vector<fused::ChannelGroup> groups;  // of the channels, as our own kernels read them
  ActivationKind activation;
  std::vector<double> slopes;  // [output channels] of a leaky activation
};

// Safe to use from several threads.
class LayerCache {
 public:
  // What is kept if it was made from these constants, else null.
  std::shared_ptr<const PackedWeight> packed_weight(const Fingerprint& made_from) const;
  std::shared_ptr<const LayerPlan> plan(const Fingerprint& made_from) const;

  void keep(std::shared_ptr<const PackedWeight> packed_weight);
  void keep(std::shared_ptr<const LayerPlan> plan);

  // Whether the weight before this one, asked about or kept, was the same.
  bool sees_again(const Fingerprint& weight);

  int64_t bytes() const;

  // Around a fork of the process.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const PackedWeight> packed_weight_;
  std::shared_ptr<const LayerPlan> plan_;
  Fingerprint last_seen_;
};

// The cache that a handle names, null without a handle. A handle is a small tensor that names a cache by
// number. One that this process did not make, out of a file, gets a cache of its own.
std::shared_ptr<LayerCache> cache_of(const OptionalTensor& handle);

}  // namespace ghostsr::ops
