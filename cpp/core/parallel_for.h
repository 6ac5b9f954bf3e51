#pragma once

#include <cstdint>

#include "core/function_ref.h"

namespace ghostsr {

// Calls body(begin, end) on disjoint ranges that cover [0, count), from any number of threads, and returns
// when all calls have returned. at::parallel_for with a grain of 1 is one, and so is a plain call of body(0,
// count).
using ParallelFor =
    FunctionRef<void(std::int64_t count, FunctionRef<void(std::int64_t begin, std::int64_t end)> body)>;

}  // namespace ghostsr
