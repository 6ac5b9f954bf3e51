// A non-owning reference to a callable, for parameters that are called before the callee returns.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace ghostsr {

template <class Signature>
class FunctionRef;

template <class Result, class... Arguments>
class FunctionRef<Result(Arguments...)> {
 public:
  template <class Callable>
    requires(!std::is_same_v<std::remove_cvref_t<Callable>, FunctionRef>)
  FunctionRef(Callable&& callable)
      : object_(address_of(callable)), call_([](void* object, Arguments... arguments) -> Result {
          using Target = std::remove_reference_t<Callable>;
          return (*reinterpret_cast<Target*>(object))(std::forward<Arguments>(arguments)...);
        }) {}

  Result operator()(Arguments... arguments) const {
    return call_(object_, std::forward<Arguments>(arguments)...);
  }

 private:
  template <class Callable>
  static void* address_of(Callable& callable) {
    if constexpr (std::is_function_v<Callable>) {
      return reinterpret_cast<void*>(&callable);
    } else {
      return const_cast<void*>(static_cast<const void*>(std::addressof(callable)));
    }
  }

  void* object_;
  Result (*call_)(void*, Arguments...);
};

}  // namespace ghostsr
