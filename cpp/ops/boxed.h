// Registering kernels whose errors keep torch's own words.
#pragma once

#include <torch/csrc/stable/library.h>

#include <exception>

namespace ghostsr::ops {

// Throws the exception that is being handled again; one that only says which call of torch failed, with the
// reason that torch gave.
[[noreturn]] void rethrow_with_reason();

template <auto boxed>
void run_boxed(StableIValue* stack, uint64_t arguments, uint64_t results) {
  try {
    boxed(stack, arguments, results);
  } catch (const std::exception&) {
    rethrow_with_reason();
  }
}

}  // namespace ghostsr::ops

#define GHOSTSR_BOX(function) (&ghostsr::ops::run_boxed<&TORCH_BOX(function)>)
