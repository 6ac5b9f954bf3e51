// A pool of threads for the benchmarks.
#pragma once

#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

#include "core/function_ref.h"

namespace ghostsr::bench {

class Workers {
 public:
  explicit Workers(int count);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  int count() const { return count_; }

  // Calls body(i, i + 1) for each i < tasks, at most one for each worker.
  void operator()(std::int64_t tasks, FunctionRef<void(std::int64_t, std::int64_t)> body);

 private:
  void work(int index);

  int count_;
  std::barrier<> start_;
  std::barrier<> end_;
  std::int64_t tasks_ = 0;
  const FunctionRef<void(std::int64_t, std::int64_t)>* body_ = nullptr;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace ghostsr::bench
