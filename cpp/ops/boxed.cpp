#include "ops/boxed.h"

#include <dlfcn.h>
#include <torch/csrc/stable/c/shim.h>

#include <new>
#include <string>

#include "ops/checks.h"

namespace ghostsr::ops {
namespace {

// How the headers of torch begin the text of an error whose own words they do not have.
constexpr const char* kBareError = "API call failed at ";

// The text of the last error inside torch, which torch tells since 2.13; null where it does not. Looked up by
// name, since the library must load where there is no such function.
const char* reason_of_torch() {
  using Function = const char* (*)();
  static const auto function = []() -> Function {
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&torch_call_dispatcher), &info) == 0) {
      return nullptr;
    }
    void* library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) {
      return nullptr;
    }
    return reinterpret_cast<Function>(dlsym(library, "torch_exception_get_what_without_backtrace"));
  }();
  return function == nullptr ? nullptr : function();
}

}  // namespace

void rethrow_with_reason() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    fail("out of memory");
  } catch (const std::exception& error) {
    if (std::string(error.what()).find(kBareError) == std::string::npos) {
      throw;
    }
  }
  const char* reason = reason_of_torch();
  fail(reason != nullptr && *reason != '\0'
           ? reason
           : "a computation inside torch failed; torch 2.13 and later tell its reason");
}

}  // namespace ghostsr::ops
