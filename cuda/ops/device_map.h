// Torch's view of the kernels' arguments.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/ops.h>

#include "../device_tables.h"
#include "../shift_concat_backward.h"
#include "ops/arguments.h"
#include "ops/dispatch.h"
#include "ops/ghost_gradient.h"
#include "ops/layout.h"

namespace ghostsr::ops {

// The stream that torch queues work on, on the device of the tensor.
cudaStream_t current_stream(const Tensor& tensor);

// A table of one or two axes.
cuda::IntegerTable integer_table(const Tensor& table);

// The number of entries of a table, or of channels, as the kernels count them.
int32_t count_of(const char* argument, int64_t value);

template <typename T>
cuda::NumberTable<T> number_table(const OptionalTensor& table) {
  return table.has_value() ? cuda::NumberTable<T>{data_of<T>(*table), table->stride(0)}
                           : cuda::NumberTable<T>{};
}

// A checked activation, of which nothing is read on the host.
struct LayerActivation {
  ActivationKind kind;
  double slope;
  const OptionalTensor& slopes;
};

template <typename T>
cuda::DeviceActivation<T> device_activation(const LayerActivation& activation) {
  cuda::DeviceActivation<T> result{activation.kind, number_table<T>(activation.slopes),
                                   static_cast<accumulator_t<T>>(activation.slope)};
  if (activation.slopes.has_value() && activation.slopes->size(0) == 1) {
    result.slopes.step = 0;
  }
  return result;
}

// The checked tables, with `shift` in place of theirs.
template <typename T>
cuda::DeviceTables<T> device_tables(const GhostTables& tables, const Tensor& shift,
                                    int64_t intrinsic_channels, const LayerActivation& activation) {
  return {
      .intrinsic_channels = count_of("channels", intrinsic_channels),
      .ghosts = count_of("source", tables.source.size(0)),
      .source = integer_table(tables.source),
      .shift = integer_table(shift),
      .order = tables.order.has_value() ? integer_table(*tables.order) : cuda::IntegerTable{},
      .gain = number_table<T>(tables.gain),
      .ghost_bias = number_table<T>(tables.ghost_bias),
      .activation = device_activation<T>(activation),
  };
}

template <typename T>
cuda::OutputGradient<T> output_gradient(const GhostGradient& gradient) {
  return {
      .data = data_of<T>(gradient.grad_output),
      .strides = strides_of(gradient.grad_output),
      .activation = gradient.activation,
      .mask_source = gradient.mask_source,
      .output = data_of<T>(gradient.output),
      .output_strides = gradient.output.has_value() ? strides_of(*gradient.output) : Strides{},
      .intrinsic = data_of<T>(gradient.intrinsic),
      .intrinsic_strides = gradient.intrinsic.has_value() ? strides_of(*gradient.intrinsic) : Strides{},
      .residual_scale = static_cast<accumulator_t<T>>(gradient.residual_scale),
  };
}

// A plan in device memory of torch's, which it keeps alive.
template <typename T>
struct DevicePlan {
  Tensor memory;
  cuda::ChannelPlanView<accumulator_t<T>> view;
};

template <typename T>
DevicePlan<T> queue_plan(const GhostTables& tables, const Tensor& shift, int64_t intrinsic_channels,
                         const LayerActivation& activation, const Tensor& like, cudaStream_t stream) {
  using A = accumulator_t<T>;
  const int64_t ghosts = tables.source.size(0);
  const int64_t bytes = cuda::channel_plan_bytes<A>(intrinsic_channels, ghosts);
  Tensor memory = torch::stable::empty(IntList{bytes}, ScalarType::Byte, std::nullopt, like.device());
  const auto view = cuda::channel_plan_view<A>(memory.mutable_data_ptr(), intrinsic_channels, ghosts);
  cuda::launch_channel_plan(device_tables<T>(tables, shift, intrinsic_channels, activation), view, stream);
  return {memory, view};
}

}  // namespace ghostsr::ops
