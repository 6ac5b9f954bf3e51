// A machine that runs CUDA kernels compiled as C++: blocks one after the other, the threads of a block as
// fibres that take turns at every barrier, in an order drawn anew each time.
//
// It watches memory. Kernels may read and write only what a test has lent them, and every write is counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace host_cuda {

struct Index {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;
};

// Of the thread that runs now.
extern Index thread_index;
extern Index block_index;

// Runs `kernel` for every thread of every block. Throws the first error of the kernel's own.
void run_grid(unsigned blocks, unsigned threads, const std::function<void()>& kernel);

// Waits for the other threads of the block.
void wait_for_block();

// Seeds the order in which threads run. Zero keeps them in their natural order.
void seed_thread_order(uint64_t seed);

// Memory that kernels may use while it lives.
class Loan {
 public:
  // The kernels may read `bytes` from `data`; where `writable`, they may write instead, each byte once.
  Loan(const void* data, size_t bytes, bool writable);
  ~Loan();
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

  // How often each byte was written.
  const std::vector<uint8_t>& writes() const;

 private:
  size_t index_;
};

// Called by the loads and stores of kernels. Throw where the memory is not lent to them.
void check_read(const void* address, size_t bytes);
void check_write(void* address, size_t bytes);

}  // namespace host_cuda
