// Resolving the tables on the device.
//
// The host never reads the tables, so an entry out of range cannot raise an error. It is brought to the
// nearest allowed one instead: no entry makes a kernel touch memory outside the maps.
#pragma once

#include <global_memory.cuh>

#include "device_tables.h"
#include "number.cuh"

namespace ghostsr::cuda {

// Largest |dy| and |dx|, as the operators' checks allow.
constexpr int kMostShift = 7;

// Nothing added: unlike a zero it keeps the sign of a negative zero.
template <typename A>
constexpr A kNoBias = A(-0.0);

__device__ __forceinline__ int32_t read_entry(const IntegerTable& table, int64_t row, int64_t column,
                                              int32_t least, int32_t most) {
  const int64_t offset = row * table.row_step + column * table.column_step;
  const int64_t value = table.wide
                            ? static_cast<int64_t>(load(static_cast<const long long*>(table.data) + offset))
                            : static_cast<int64_t>(load(static_cast<const int*>(table.data) + offset));
  return static_cast<int32_t>(value < least ? least : value > most ? most : value);
}

template <typename T>
__device__ __forceinline__ accumulator_t<T> read_slope(const DeviceActivation<T>& activation,
                                                       int32_t output) {
  using A = accumulator_t<T>;
  return activation.kind != ActivationKind::leaky ? A(0)
         : activation.slopes.data == nullptr
             ? activation.slope
             : widen(load(activation.slopes.data + output * activation.slopes.step));
}

// The origin of output channel `output`; ghost is its index among the ghosts, or -1.
template <typename T>
__device__ ChannelLink<accumulator_t<T>> resolve_channel(const DeviceTables<T>& tables, int32_t output,
                                                         int32_t& ghost) {
  using A = accumulator_t<T>;
  const int32_t last = tables.intrinsic_channels + tables.ghosts - 1;
  const int32_t concatenated =
      tables.order.data == nullptr ? output : read_entry(tables.order, output, 0, 0, last);
  if (concatenated < tables.intrinsic_channels) {
    ghost = -1;
    return {output, concatenated, 0, 0, A(1), kNoBias<A>, read_slope(tables.activation, output)};
  }
  ghost = concatenated - tables.intrinsic_channels;
  return {
      output,
      read_entry(tables.source, ghost, 0, 0, tables.intrinsic_channels - 1),
      read_entry(tables.shift, ghost, 0, -kMostShift, kMostShift),
      read_entry(tables.shift, ghost, 1, -kMostShift, kMostShift),
      tables.gain.data == nullptr ? A(1) : widen(load(tables.gain.data + ghost * tables.gain.step)),
      tables.ghost_bias.data == nullptr
          ? kNoBias<A>
          : widen(load(tables.ghost_bias.data + ghost * tables.ghost_bias.step)),
      read_slope(tables.activation, output),
  };
}

template <typename T>
__device__ ChannelLink<accumulator_t<T>> resolve_channel(const DeviceTables<T>& tables, int32_t output) {
  int32_t ghost;
  return resolve_channel(tables, output, ghost);
}

}  // namespace ghostsr::cuda
