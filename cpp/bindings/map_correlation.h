#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

namespace ghostsr::bindings {

// Checks the arrays and calls ghostsr::correlate_maps without the interpreter's lock.
pybind11::array_t<double> correlate_maps(const pybind11::array& first, const pybind11::array& second,
                                         int64_t max_lag_y, int64_t max_lag_x, int64_t threads);

}  // namespace ghostsr::bindings
