// Telling whether values in memory are still those that something was made of.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ghostsr {

// A digest of values. It depends on them and on their order, not on where they lie, and is the same on every
// processor. No protection against somebody who looks for two equal ones.
class Fingerprint {
 public:
  void add(std::int64_t value);

  // Reads the bytes once, as fast as memory gives them.
  void add(const void* data, std::size_t bytes);

  bool operator==(const Fingerprint&) const = default;

 private:
  std::array<std::uint64_t, 2> words_{0x9e3779b97f4a7c15ULL, 0xc2b2ae3d27d4eb4fULL};
};

}  // namespace ghostsr
