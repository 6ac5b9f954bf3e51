#include "machine.h"

#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace host_cuda {

Index thread_index;
Index block_index;

namespace {

constexpr size_t kStackBytes = 64 * 1024;

class Fibre {
 public:
  Fibre() : stack_(new char[kStackBytes]) {}

  void prepare(void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
    done = false;
  }
  ucontext_t& context() { return context_; }
  const char* stack() const { return stack_.get(); }

  bool done = false;

 private:
  std::unique_ptr<char[]> stack_;
  ucontext_t context_;
};

struct Scheduler {
  ucontext_t context;
  std::vector<std::unique_ptr<Fibre>> fibres;
  Fibre* running = nullptr;
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr error;
  std::mt19937_64 random;
  bool shuffles = true;
#ifdef __SANITIZE_ADDRESS__
  const void* stack = nullptr;
  size_t stack_bytes = 0;
#endif
};
Scheduler scheduler;

void arrive_in_fibre() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.stack, &scheduler.stack_bytes);
#endif
}

void leave_fibre([[maybe_unused]] bool for_good) {
  Fibre& fibre = *scheduler.running;
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack, scheduler.stack, scheduler.stack_bytes);
#endif
  swapcontext(&fibre.context(), &scheduler.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, &scheduler.stack, &scheduler.stack_bytes);
#endif
}

void enter_fibre(Fibre& fibre) {
  scheduler.running = &fibre;
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fibre.stack(), kStackBytes);
#endif
  swapcontext(&scheduler.context, &fibre.context());
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void fibre_main() {
  arrive_in_fibre();
  try {
    (*scheduler.kernel)();
  } catch (...) {
    if (!scheduler.error) {
      scheduler.error = std::current_exception();
    }
  }
  scheduler.running->done = true;
  leave_fibre(true);
}

struct Lent {
  uintptr_t begin;
  uintptr_t end;
  bool writable;
  std::vector<uint8_t> writes;
};
std::vector<std::unique_ptr<Lent>> lent;

Lent* find(const void* address, size_t bytes, bool writable) {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  for (const auto& memory : lent) {
    if (memory && memory->writable == writable && begin >= memory->begin && begin + bytes <= memory->end) {
      return memory.get();
    }
  }
  return nullptr;
}

[[noreturn]] void refuse(const char* action, size_t bytes) {
  throw std::runtime_error("block " + std::to_string(block_index.x) + ", thread " +
                           std::to_string(thread_index.x) + " " + action + " " + std::to_string(bytes) +
                           " bytes that are not its own");
}

}  // namespace

void run_grid(unsigned blocks, unsigned threads, const std::function<void()>& kernel) {
  while (scheduler.fibres.size() < threads) {
    scheduler.fibres.push_back(std::make_unique<Fibre>());
  }
  scheduler.kernel = &kernel;
  scheduler.error = nullptr;
  std::vector<unsigned> order(threads);
  for (unsigned block = 0; block < blocks && !scheduler.error; ++block) {
    block_index = {block, 0, 0};
    std::iota(order.begin(), order.end(), 0U);
    for (unsigned thread = 0; thread < threads; ++thread) {
      scheduler.fibres[thread]->prepare(&fibre_main);
    }
    while (!order.empty() && !scheduler.error) {
      if (scheduler.shuffles) {
        std::shuffle(order.begin(), order.end(), scheduler.random);
      }
      for (const unsigned thread : order) {
        thread_index = {thread, 0, 0};
        enter_fibre(*scheduler.fibres[thread]);
      }
      std::erase_if(order, [](unsigned thread) { return scheduler.fibres[thread]->done; });
    }
    order.resize(threads);
  }
  if (scheduler.error) {
    std::rethrow_exception(scheduler.error);
  }
}

void wait_for_block() {
  const Index index = thread_index;
  leave_fibre(false);
  thread_index = index;
}

void seed_thread_order(uint64_t seed) {
  scheduler.shuffles = seed != 0;
  scheduler.random.seed(seed);
}

Loan::Loan(const void* data, size_t bytes, bool writable) : index_(lent.size()) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  lent.push_back(std::make_unique<Lent>(
      Lent{begin, begin + bytes, writable, std::vector<uint8_t>(writable ? bytes : 0, uint8_t{0})}));
}

Loan::~Loan() {
  lent[index_].reset();
  while (!lent.empty() && !lent.back()) {
    lent.pop_back();
  }
}

const std::vector<uint8_t>& Loan::writes() const { return lent[index_]->writes; }

void check_read(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    refuse("reads across a boundary of", bytes);
  }
  if (find(address, bytes, false) == nullptr) {
    refuse("reads", bytes);
  }
}

void check_write(void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    refuse("writes across a boundary of", bytes);
  }
  Lent* memory = find(address, bytes, true);
  if (memory == nullptr) {
    refuse("writes", bytes);
  }
  const size_t offset = reinterpret_cast<uintptr_t>(address) - memory->begin;
  for (size_t index = offset; index < offset + bytes; ++index) {
    ++memory->writes[index];
  }
}

}  // namespace host_cuda
