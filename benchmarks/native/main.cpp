#include <benchmark/benchmark.h>

#include <string>

#include "ceilings.h"
#include "core/cpu_features.h"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  const ghostsr::bench::Ceilings& ceilings = ghostsr::bench::ceilings();
  benchmark::AddCustomContext("simd_level", ghostsr::simd_level_name(ghostsr::simd_level()));
  benchmark::AddCustomContext("fma_ceiling_gflops", std::to_string(ceilings.flops_per_second / 1e9));
  benchmark::AddCustomContext("copy_ceiling_gbytes", std::to_string(ceilings.copied_bytes_per_second / 1e9));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
