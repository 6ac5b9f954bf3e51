#include "workers.h"

namespace ghostsr::bench {

Workers::Workers(int count) : count_(count), start_(count), end_(count) {
  for (int index = 1; index < count; ++index) {
    threads_.emplace_back([this, index] {
      for (;;) {
        start_.arrive_and_wait();
        if (stopping_) {
          return;
        }
        work(index);
        end_.arrive_and_wait();
      }
    });
  }
}

Workers::~Workers() {
  stopping_ = true;
  start_.arrive_and_wait();
}

void Workers::operator()(std::int64_t tasks, FunctionRef<void(std::int64_t, std::int64_t)> body) {
  tasks_ = tasks;
  body_ = &body;
  start_.arrive_and_wait();
  work(0);
  end_.arrive_and_wait();
}

void Workers::work(int index) {
  if (index < tasks_) {
    (*body_)(index, index + 1);
  }
}

}  // namespace ghostsr::bench
