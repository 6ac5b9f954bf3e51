#include <pybind11/pybind11.h>

#include "bindings/build_info.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "Torch-free native functions: build information and the heavy parts of conversion.";
  module.def(
      "build_info", &ghostsr::bindings::build_info,
      "Return the version, compiler, SIMD levels, CUDA architectures and torch ABI target of this build.");
}
