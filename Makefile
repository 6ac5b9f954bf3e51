# make demo   install into a virtual environment and upscale a photograph
# make test   install what the tests need, then lint and run all of them
# make gpu    on a machine with an NVIDIA GPU: build with CUDA, run the GPU tests, benchmark into results/
# make docs   build the documents into build/documents; warnings are errors
# make bench  build and run the C++ benchmarks
#
# TORCH is the torch requirement that the environments get, such as TORCH=torch==2.13.0. BENCH_ARCHITECTURES are those that
# the CUDA benchmark is built for.

PYTHON ?= python3
TORCH ?= torch
BENCH_ARCHITECTURES ?= native
EMULATOR ?= qemu-aarch64 -L /usr/aarch64-linux-gnu
BUILD_TOOLS = "scikit-build-core>=0.11" "pybind11>=2.13" "cmake>=3.25" ninja
# pip would compile all modules of all packages, one after the other; Python compiles those that are imported.
PIP_INSTALL = -m pip install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE
DEMO = .venv-demo/bin
TEST = .venv-test/bin
DOCS = .venv-docs/bin
GPU = .venv-cuda/bin

.PHONY: demo docs test test-install lint tidy test-native test-aarch64 test-sanitizers test-sanitizer test-python bench \
  cuda-install gpu gpu-present test-gpu bench-gpu clean

demo:
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python $(PIP_INSTALL) "$(TORCH)" numpy $(BUILD_TOOLS)
	$(DEMO)/python $(PIP_INSTALL) --no-build-isolation .
	$(DEMO)/python examples/upscale_photograph.py demo

test: test-install lint test-native test-python

docs:
	$(PYTHON) -m venv .venv-docs
	$(DOCS)/python $(PIP_INSTALL) "mkdocs>=1.6" "mkdocstrings[python]>=0.26" "pymdown-extensions>=10" ruff
	$(DOCS)/python -m mkdocs build --strict

# The wheel is built once and kept in dist/, so that what is tested is what would be shipped.
test-install:
	$(PYTHON) -m venv .venv-test
	$(TEST)/python $(PIP_INSTALL) "$(TORCH)" numpy $(BUILD_TOOLS)
	rm -rf dist
	GHOSTSR_WERROR=ON $(TEST)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	$(TEST)/python $(PIP_INSTALL) --force-reinstall --no-deps dist/*.whl
	$(TEST)/python $(PIP_INSTALL) "$$(echo dist/*.whl)[dev]" "$(TORCH)"

lint:
	$(TEST)/ruff check .
	$(TEST)/ruff format --check .
	$(TEST)/mypy
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(TEST)/clang-format --dry-run -Werror

# Static checks of the C++ files of the processor, listed in .clang-tidy; kernels are checked at each SIMD level.
tidy:
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake -S . -B build/tidy -G Ninja -DGHOSTSR_CUDA=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON \
	  -DPython_EXECUTABLE="$(CURDIR)/$(TEST)/python" -Dpybind11_DIR="$$($(TEST)/python -m pybind11 --cmakedir)"
	git ls-files 'cpp/*.cpp' | xargs -P 2 -n 4 $(TEST)/clang-tidy -p build/tidy --quiet

# Needs GoogleTest (Debian: libgtest-dev).
test-native:
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake -S . -B build/native -G Ninja -DGHOSTSR_EXTENSION=OFF -DGHOSTSR_TESTS=ON \
	  -DGHOSTSR_WERROR=ON $(NATIVE_OPTIONS)
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake --build build/native
	PATH="$(CURDIR)/$(TEST):$$PATH" ctest --test-dir build/native --output-on-failure --parallel 2

KERNEL_TESTS := fused_test map_correlation_test cpu_shift_concat_test cpu_shift_selection_test

# The tests of the processor's kernels, compiled for 64-bit ARM and run by QEMU. Needs a cross compiler, the emulator and
# GoogleTest's source (Debian: g++-aarch64-linux-gnu, qemu-user, googletest).
test-aarch64:
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake -S . -B build/aarch64 -G Ninja -DGHOSTSR_EXTENSION=OFF -DGHOSTSR_TESTS=ON \
	  -DGHOSTSR_WERROR=ON -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux.cmake $(NATIVE_OPTIONS)
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake --build build/aarch64 --target half_test $(KERNEL_TESTS)
	for test in half_test $(KERNEL_TESTS); do \
	  $(EMULATOR) build/aarch64/tests/native/$$test --gtest_brief=1 || exit 1; \
	done

# Of them, those that start threads.
THREADED_TESTS := fused_test

test-sanitizers:
	$(MAKE) test-sanitizer SANITIZER=address SANITIZED_TESTS="$(KERNEL_TESTS)"
	$(MAKE) test-sanitizer SANITIZER=thread SANITIZED_TESTS="$(THREADED_TESTS)"

test-sanitizer:
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake -S . -B build/$(SANITIZER) -G Ninja -DGHOSTSR_EXTENSION=OFF -DGHOSTSR_TESTS=ON \
	  -DGHOSTSR_SANITIZE=$(SANITIZER)
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake --build build/$(SANITIZER) --target $(SANITIZED_TESTS)
	for test in $(SANITIZED_TESTS); do build/$(SANITIZER)/tests/native/$$test --gtest_brief=1 || exit 1; done

test-python:
	$(TEST)/python -m pytest $(PYTEST_OPTIONS)

# Needs Google Benchmark (Debian: libbenchmark-dev).
bench: test-install
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake -S . -B build/bench -G Ninja -DGHOSTSR_EXTENSION=OFF -DGHOSTSR_BENCHMARKS=ON
	PATH="$(CURDIR)/$(TEST):$$PATH" cmake --build build/bench
	build/bench/benchmarks/native/ghostsr_bench

# The wheel with the CUDA operators, in dist/cuda and an environment of its own. TORCH must be a build with CUDA.
cuda-install:
	$(PYTHON) -m venv .venv-cuda
	$(GPU)/python $(PIP_INSTALL) "$(TORCH)" numpy matplotlib pytest hypothesis $(BUILD_TOOLS)
	rm -rf dist/cuda
	GHOSTSR_CUDA=ON GHOSTSR_WERROR=ON $(GPU)/python -m pip wheel --quiet --no-build-isolation --no-deps \
	  --config-settings=build-dir=build/cuda-wheel --wheel-dir dist/cuda .
	$(GPU)/python $(PIP_INSTALL) --force-reinstall --no-deps dist/cuda/*.whl
	$(GPU)/python $(PIP_INSTALL) dist/cuda/*.whl "$(TORCH)"

gpu: gpu-present
	$(MAKE) cuda-install
	$(MAKE) test-gpu
	$(MAKE) bench-gpu

gpu-present:
	@command -v nvcc >/dev/null || \
	  { echo "make gpu: no nvcc on PATH; the CUDA toolkit of torch's CUDA version is needed" >&2; exit 1; }
	@nvidia-smi -L 2>/dev/null | grep -q '^GPU' || \
	  { echo "make gpu: nvidia-smi finds no NVIDIA GPU on this machine" >&2; exit 1; }

test-gpu:
	$(GPU)/python -m pytest tests/python/cuda
	@if command -v compute-sanitizer >/dev/null; then \
	  for tool in memcheck racecheck; do \
	    compute-sanitizer --tool $$tool --kernel-name kernel_substring=ghostsr --report-api-errors no \
	      --error-exitcode 1 $(GPU)/python -m pytest -q tests/python/cuda/test_devices.py -m "not slow" || exit 1; \
	  done; \
	else \
	  echo "compute-sanitizer: skipped, not on PATH"; \
	fi

# Needs Google Benchmark (Debian: libbenchmark-dev).
bench-gpu:
	PATH="$(CURDIR)/$(GPU):$$PATH" cmake -S . -B build/bench-cuda -G Ninja -DGHOSTSR_CUDA=ON -DGHOSTSR_BENCHMARKS=ON \
	  -DGHOSTSR_WERROR=ON -DCMAKE_CUDA_ARCHITECTURES=$(BENCH_ARCHITECTURES) \
	  -DPython_EXECUTABLE="$(CURDIR)/$(GPU)/python" -Dpybind11_DIR="$$($(GPU)/python -m pybind11 --cmakedir)"
	PATH="$(CURDIR)/$(GPU):$$PATH" cmake --build build/bench-cuda --target ghostsr_bench_cuda
	build/bench-cuda/cuda/ghostsr_bench_cuda
	$(GPU)/python benchmarks/gpu.py --output results

clean:
	rm -rf build dist demo .venv-demo .venv-test .venv-docs .venv-cuda
