// What one thread of this machine can do at best, measured once at the start.
#pragma once

namespace ghostsr::bench {

struct Ceilings {
  double flops_per_second =
      0;  // float32 fused multiply-adds at the process's SIMD level, two operations each
  double copied_bytes_per_second = 0;  // read plus written, beyond the caches
};

const Ceilings& ceilings();

}  // namespace ghostsr::bench
