#include "ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <vector>

#include "core/cpu_features.h"

namespace ghostsr::bench {
namespace {

template <class Work>
double fastest_seconds(Work work) {
  double fastest = 1e30;
  for (int round = 0; round < 20; ++round) {
    const auto start = std::chrono::steady_clock::now();
    work();
    fastest =
        std::min(fastest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return fastest;
}

constexpr int kChains = 12;  // enough independent sums to hide the latency of two units
constexpr int kSteps = 1 << 18;

// Runs kSteps multiply-adds on each of kChains vectors; the empty statement makes the compiler keep every
// one.
#define GHOSTSR_DEFINE_CHAINS(name, bytes, constraint, ...)                    \
  __VA_ARGS__ void name() {                                                    \
    using Vector = float __attribute__((vector_size(bytes)));                  \
    Vector sums[kChains] = {};                                                 \
    Vector factor = Vector{} + 0.5F;                                           \
    for (int step = 0; step < kSteps; ++step) {                                \
      _Pragma("GCC unroll 12") for (int chain = 0; chain < kChains; ++chain) { \
        sums[chain] = sums[chain] * factor + factor;                           \
        asm volatile("" : "+" constraint(sums[chain]));                        \
      }                                                                        \
    }                                                                          \
  }

#if defined(__x86_64__)
GHOSTSR_DEFINE_CHAINS(run_portable_chains, 16, "x")
GHOSTSR_DEFINE_CHAINS(run_avx2_chains, 32, "x", [[gnu::target("avx2,fma")]])
GHOSTSR_DEFINE_CHAINS(run_avx512_chains, 64, "v", [[gnu::target("avx512f")]])
#else
GHOSTSR_DEFINE_CHAINS(run_portable_chains, 16, "w")
#endif

double measure_flops() {
  double lanes = 4;
  void (*chains)() = run_portable_chains;
#if defined(__x86_64__)
  if (simd_level() == SimdLevel::avx2) {
    lanes = 8;
    chains = run_avx2_chains;
  } else if (simd_level() == SimdLevel::avx512) {
    lanes = 16;
    chains = run_avx512_chains;
  }
#endif
  return 2.0 * lanes * kChains * kSteps / fastest_seconds(chains);
}

double measure_copy() {
  constexpr std::size_t kBytes = std::size_t{128} << 20;
  std::vector<char> from(kBytes, 1);
  std::vector<char> to(kBytes, 2);
  const double seconds = fastest_seconds([&] {
    std::memcpy(to.data(), from.data(), kBytes);
    asm volatile("" : : "r"(to.data()) : "memory");
  });
  return 2.0 * static_cast<double>(kBytes) / seconds;
}

}  // namespace

const Ceilings& ceilings() {
  static const Ceilings measured = {measure_flops(), measure_copy()};
  return measured;
}

}  // namespace ghostsr::bench
