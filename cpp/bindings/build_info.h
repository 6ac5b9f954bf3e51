#pragma once

#include <pybind11/pybind11.h>

namespace ghostsr::bindings {

// What this build of the package is made of, for bug reports.
pybind11::dict build_info();

}  // namespace ghostsr::bindings
