#include "bindings/map_correlation.h"

#include <stdexcept>
#include <string>

#include "bindings/threads.h"
#include "core/correlation/map_correlation.h"

namespace ghostsr::bindings {

namespace {

std::string shape_text(const pybind11::array& array) {
  std::string text = "[";
  for (pybind11::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(array.shape(axis));
  }
  return text + "]";
}

void check_maps(const char* name, const pybind11::array& maps) {
  if (!pybind11::isinstance<pybind11::array_t<float>>(maps)) {
    throw pybind11::type_error(std::string(name) + ": found an array of " +
                               std::string(pybind11::str(maps.dtype())) + "; float32 is allowed");
  }
  if (maps.ndim() != 4) {
    throw pybind11::value_error(std::string(name) + ": found shape " + shape_text(maps) +
                                "; [N, C, H, W] is allowed");
  }
  if ((maps.flags() & pybind11::array::c_style) == 0) {
    throw pybind11::value_error(std::string(name) +
                                ": is not contiguous; copy it with numpy.ascontiguousarray");
  }
}

void check_max_lag(const char* name, int64_t max_lag) {
  if (max_lag < 0 || max_lag > kMaxLag) {
    throw pybind11::value_error(std::string(name) + ": found " + std::to_string(max_lag) + "; 0 to " +
                                std::to_string(kMaxLag) + " is allowed");
  }
}

}  // namespace

pybind11::array_t<double> correlate_maps(const pybind11::array& first, const pybind11::array& second,
                                         int64_t max_lag_y, int64_t max_lag_x, int64_t threads) {
  check_maps("first", first);
  check_maps("second", second);
  for (const int axis : {0, 2, 3}) {
    if (first.shape(axis) != second.shape(axis)) {
      throw pybind11::value_error("second: found shape " + shape_text(second) + " beside first of shape " +
                                  shape_text(first) + "; they may differ in their channels alone");
    }
  }
  check_max_lag("max_lag_y", max_lag_y);
  check_max_lag("max_lag_x", max_lag_x);
  if (threads < 1) {
    throw pybind11::value_error("threads: found " + std::to_string(threads) + "; 1 or more is allowed");
  }
  const MapCorrelation maps{{first.shape(0), first.shape(2), first.shape(3)},
                            static_cast<const float*>(first.data()),
                            first.shape(1),
                            static_cast<const float*>(second.data()),
                            second.shape(1),
                            max_lag_y,
                            max_lag_x};
  pybind11::array_t<double> sums(
      {2 * max_lag_y + 1, 2 * max_lag_x + 1, maps.first_channels, maps.second_channels});
  double* to = sums.mutable_data();
  {
    const pybind11::gil_scoped_release unlocked;
    correlate_maps(maps, to, [threads](int64_t count, FunctionRef<void(int64_t, int64_t)> body) {
      run_on_threads(threads, count, body);
    });
  }
  return sums;
}

}  // namespace ghostsr::bindings
