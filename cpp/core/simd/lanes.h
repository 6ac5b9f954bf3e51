// Eight lanes of a number as one value; the compiler maps it to the registers of the level it compiles for.
#pragma once

#include <cstdint>

namespace ghostsr {

template <typename T>
struct Lanes {
  typedef T type __attribute__((vector_size(8 * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <typename T>
using lanes_t = typename Lanes<T>::type;

constexpr int64_t kLanes = 8;

}  // namespace ghostsr
