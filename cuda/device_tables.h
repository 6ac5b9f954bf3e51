// The tables of a ghost layer as they lie on the device.
#pragma once

#include <cstdint>

#include "core/activation.h"
#include "core/half.h"

namespace ghostsr::cuda {

// int64 or int32 numbers of one or two axes.
struct IntegerTable {
  const void* data = nullptr;
  int64_t row_step = 0;
  int64_t column_step = 0;
  bool wide = true;  // int64
};

template <typename T>
struct NumberTable {
  const T* data = nullptr;
  int64_t step = 0;
};

template <typename T>
struct DeviceActivation {
  ActivationKind kind = ActivationKind::none;
  NumberTable<T> slopes;     // [output channels] of `leaky`; a step of 0 repeats a single one
  accumulator_t<T> slope{};  // of `leaky` where the table's data is null
};

template <typename T>
struct DeviceTables {
  int32_t intrinsic_channels = 0;
  int32_t ghosts = 0;
  IntegerTable source;        // [ghosts]
  IntegerTable shift;         // [ghosts, 2] as (dy, dx)
  IntegerTable order;         // [intrinsic_channels + ghosts]; the identity when its data is null
  NumberTable<T> gain;        // [ghosts]; 1 when its data is null
  NumberTable<T> ghost_bias;  // [ghosts]; 0 when its data is null
  DeviceActivation<T> activation;
};

// Where one output channel comes from; A is the type that sums are kept in.
template <typename A>
struct alignas(8) ChannelLink {
  int32_t output;  // -1 when no output channel has this origin
  int32_t source;
  int32_t dy;
  int32_t dx;
  A gain;
  A bias;
  A slope;  // of the activation; 0 where it has none
};

}  // namespace ghostsr::cuda
