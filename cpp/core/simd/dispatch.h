// Choices of run time made choices of compile time.
#pragma once

#include "core/activation.h"

namespace ghostsr {

template <auto constant>
struct Constant {
  static constexpr auto value = constant;
};

// choose(body, a, b, ...) calls body(Constant<a>(), Constant<b>(), ...). Only always_inline functions and the
// caller's own lambdas are involved, so that nothing is shared between instruction levels.
template <typename Body>
[[gnu::always_inline]] inline void choose(const Body& body) {
  body();
}

template <typename Body, typename... Rest>
[[gnu::always_inline]] inline void choose(const Body& body, bool first, Rest... rest);
template <typename Body, typename... Rest>
[[gnu::always_inline]] inline void choose(const Body& body, ActivationKind first, Rest... rest);
template <auto constant, typename Body, typename... Rest>
[[gnu::always_inline]] inline void choose_rest(const Body& body, Rest... rest) {
  choose([&](auto... later) __attribute__((always_inline)) { body(Constant<constant>(), later...); },
         rest...);
}

template <typename Body, typename... Rest>
[[gnu::always_inline]] inline void choose(const Body& body, bool first, Rest... rest) {
  first ? choose_rest<true>(body, rest...) : choose_rest<false>(body, rest...);
}

template <typename Body, typename... Rest>
[[gnu::always_inline]] inline void choose(const Body& body, ActivationKind first, Rest... rest) {
  switch (first) {
    case ActivationKind::none:
      return choose_rest<ActivationKind::none>(body, rest...);
    case ActivationKind::relu:
      return choose_rest<ActivationKind::relu>(body, rest...);
    case ActivationKind::leaky:
      return choose_rest<ActivationKind::leaky>(body, rest...);
  }
}

// The same for what a gradient undoes: body(Constant<source>(), Constant<kind>()).
template <typename Body>
[[gnu::always_inline]] inline void choose_mask(const Body& body, MaskSource source, ActivationKind kind) {
  using None = Constant<ActivationKind::none>;
  using Relu = Constant<ActivationKind::relu>;
  using Leaky = Constant<ActivationKind::leaky>;
  using Output = Constant<MaskSource::output>;
  using Intrinsic = Constant<MaskSource::intrinsic>;
  const bool leaky = kind == ActivationKind::leaky;
  switch (source) {
    case MaskSource::none:
      return body(Constant<MaskSource::none>(), None());
    case MaskSource::output:
      return leaky ? body(Output(), Leaky()) : body(Output(), Relu());
    case MaskSource::intrinsic:
      return leaky ? body(Intrinsic(), Leaky()) : body(Intrinsic(), Relu());
  }
}

}  // namespace ghostsr
