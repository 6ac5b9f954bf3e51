#include "bindings/build_info.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "core/cpu_features.h"
#include "core/simd/kernels.h"

namespace ghostsr::bindings {

namespace {

pybind11::object text_or_none(const std::string& text) {
  return text.empty() ? pybind11::object(pybind11::none()) : pybind11::object(pybind11::str(text));
}

}  // namespace

pybind11::dict build_info() {
  using namespace pybind11::literals;
  std::vector<std::string> simd_compiled;
  for (const SimdLevel level : compiled_simd_levels()) {
    simd_compiled.emplace_back(simd_level_name(level));
  }
  return pybind11::dict("version"_a = GHOSTSR_VERSION, "compiler"_a = GHOSTSR_COMPILER,
                        "simd_compiled"_a = simd_compiled, "simd_chosen"_a = simd_level_name(simd_level()),
                        "native_bfloat16"_a = kernels().fused->has_tiles,
                        "cuda_version"_a = text_or_none(GHOSTSR_CUDA_VERSION),
                        "cuda_architectures"_a = text_or_none(GHOSTSR_CUDA_ARCHITECTURES),
                        "torch_abi_target"_a = "2.11", "torch_at_build"_a = GHOSTSR_BUILD_TORCH);
}

}  // namespace ghostsr::bindings
