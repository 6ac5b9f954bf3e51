// Division by a number that is known at launch, without the device's slow integer division.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ghostsr::cuda {

struct Quotient {
  int32_t value;
  int32_t remainder;
};

// Divides 0 .. 2^31 - 1 by 1 .. 2^31 - 1: Granlund and Montgomery, "Division by invariant integers using
// multiplication", PLDI 1994, section 4 with N = 32.
class FastDivisor {
 public:
  FastDivisor() = default;
  explicit FastDivisor(int32_t divisor) : divisor_(divisor) {
    while ((uint64_t{1} << shift_) < static_cast<uint64_t>(divisor)) {
      ++shift_;
    }
    const uint64_t excess = (uint64_t{1} << shift_) - static_cast<uint64_t>(divisor);
    multiplier_ = static_cast<uint32_t>((excess << 32U) / static_cast<uint64_t>(divisor) + 1);
  }

  __device__ __forceinline__ Quotient divide(int32_t value) const {
    const auto wide = static_cast<uint32_t>(value);
    // Neither term exceeds 2^31, so the sum does not wrap.
    const auto quotient = static_cast<int32_t>((__umulhi(wide, multiplier_) + wide) >> shift_);
    return {quotient, value - quotient * divisor_};
  }

 private:
  int32_t divisor_ = 1;
  uint32_t multiplier_ = 1;
  uint32_t shift_ = 0;
};

}  // namespace ghostsr::cuda
