# Declares the imported target StableTorch::torch: torch's stable C ABI and its header-only C++ layer.
#
# find_package(Torch) is avoided on purpose: without a GPU it overrides CMAKE_CUDA_ARCHITECTURES, and it fails where
# nvcc is a wrapper script outside the toolkit. The stable ABI needs two include folders and one library.

execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import json, torch; print(json.dumps([torch.__path__[0], torch.__version__, torch.version.cuda or '']))"
  OUTPUT_VARIABLE _stable_torch_json
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE _stable_torch_result)
if(NOT _stable_torch_result EQUAL 0)
  message(FATAL_ERROR "ghostsr needs torch to build, and ${Python_EXECUTABLE} cannot import it. "
                      "Install torch >= 2.11 first, or build with pip's build isolation.")
endif()
string(JSON STABLE_TORCH_ROOT GET "${_stable_torch_json}" 0)
string(JSON STABLE_TORCH_VERSION GET "${_stable_torch_json}" 1)
string(JSON STABLE_TORCH_CUDA GET "${_stable_torch_json}" 2)
string(REGEX MATCH "^[0-9]+\\.[0-9]+(\\.[0-9]+)?" _stable_torch_release "${STABLE_TORCH_VERSION}")
if(_stable_torch_release VERSION_LESS 2.11)
  message(FATAL_ERROR "ghostsr needs torch >= 2.11 to build; found ${STABLE_TORCH_VERSION}.")
endif()

add_library(StableTorch::torch INTERFACE IMPORTED)
target_include_directories(StableTorch::torch SYSTEM INTERFACE "${STABLE_TORCH_ROOT}/include")
# 2.11 is the oldest release whose stable ABI covers what the operators call.
target_compile_definitions(StableTorch::torch INTERFACE TORCH_TARGET_VERSION=0x020b000000000000)
target_link_libraries(StableTorch::torch INTERFACE "${STABLE_TORCH_ROOT}/lib/libtorch_cpu.so")
message(STATUS "torch ${STABLE_TORCH_VERSION} (CUDA: ${STABLE_TORCH_CUDA})")
