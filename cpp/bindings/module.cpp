#include <pybind11/pybind11.h>

#include "bindings/build_info.h"
#include "bindings/map_correlation.h"
#include "core/correlation/map_correlation.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "Torch-free native functions: build information and the heavy parts of conversion.";
  module.def(
      "build_info", &ghostsr::bindings::build_info,
      "Return the version, compiler, SIMD levels, CUDA architectures and torch ABI target of this build.");
  using namespace pybind11::literals;
  module.def("correlate_maps", &ghostsr::bindings::correlate_maps, "first"_a, "second"_a, "max_lag_y"_a,
             "max_lag_x"_a, pybind11::kw_only(), "threads"_a = 1,
             R"(Return the correlations of maps at all small lags.

result[ly + max_lag_y, lx + max_lag_x, i, j] is the sum over n, y, x of
first[n, i, y, x] * second[n, j, y + ly, x + lx], maps being zero outside. It is accurate to about 1e-6 of
the product of the two maps' norms and does not depend on the number of threads. A NaN spoils all sums of its
channel.

Args:
    first: float32 [N, I, H, W], contiguous.
    second: float32 [N, J, H, W], contiguous; may be ``first``, at two thirds of the cost.
    max_lag_y: The largest lag in rows, 0 to MAX_LAG.
    max_lag_x: The largest lag in columns.
    threads: How many to use.

Returns:
    float64 [2 * max_lag_y + 1, 2 * max_lag_x + 1, I, J].

Raises:
    TypeError: An array is not float32.
    ValueError: A shape, a lag or a number of threads is not allowed, or an array is not contiguous.
)");
  module.attr("MAX_LAG") = ghostsr::kMaxLag;
}
