#include "bindings/threads.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

namespace ghostsr::bindings {

void run_on_threads(int64_t threads, int64_t count, FunctionRef<void(int64_t begin, int64_t end)> body) {
  const int64_t parts = std::min(threads, count);
  if (parts < 1) {
    return;
  }
  std::vector<std::exception_ptr> failures(parts);
  const auto run_part = [&](int64_t part) {
    try {
      body(count * part / parts, count * (part + 1) / parts);
    } catch (...) {
      failures[part] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> workers;
    for (int64_t part = 1; part < parts; ++part) {
      workers.emplace_back(run_part, part);
    }
    run_part(0);
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) {
      std::rethrow_exception(failure);
    }
  }
}

}  // namespace ghostsr::bindings
