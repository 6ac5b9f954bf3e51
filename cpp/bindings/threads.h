#pragma once

#include <cstdint>

#include "core/function_ref.h"

namespace ghostsr::bindings {

// Calls body(begin, end) on parts of [0, count) of nearly equal size, one for each of at most `threads`
// threads, and returns when all have returned. An exception of the body is passed on.
void run_on_threads(int64_t threads, int64_t count, FunctionRef<void(int64_t begin, int64_t end)> body);

}  // namespace ghostsr::bindings
