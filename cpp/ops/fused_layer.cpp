#include "ops/fused_layer.h"

#include <torch/csrc/stable/ops.h>

#include "ops/dispatch.h"
#include "ops/layout.h"
#include "ops/map_memory.h"

namespace ghostsr::ops {
namespace {

// The kernel reads the residual as a dense run.
OptionalTensor dense(const OptionalTensor& residual) {
  if (!residual.has_value()) {
    return std::nullopt;
  }
  return densely_laid_out(*residual, true);
}

template <class T>
std::vector<float> as_floats(const OptionalTensor& bias) {
  std::vector<float> values;
  if (bias.has_value()) {
    const T* data = data_of<T>(*bias);
    for (int64_t channel = 0; channel < bias->numel(); ++channel) {
      values.push_back(static_cast<float>(data[channel * bias->stride(0)]));
    }
  }
  return values;
}

template <class T>
void run_as(const Tensor& input, const FusedLayer& layer, const Tensor& output) {
  const std::vector<float> bias = as_floats<T>(layer.bias);
  const OptionalTensor residual = dense(layer.residual);
  const fused::ArgumentsOf<T> arguments{
      .shape = layer.shape,
      .input = data_of<T>(input),
      .input_stride_n = input.stride(0),
      .input_stride_y = input.stride(2),
      .input_stride_x = input.stride(3),
      .packed_weight = data_of<T>(layer.packed_weight),
      .bias = bias.empty() ? nullptr : bias.data(),
      .channels = &layer.channels,
      .groups = layer.groups,
      .residual = data_of<T>(residual),
      .residual_scale = static_cast<float>(layer.residual_scale),
      .activation = layer.activation,
      .output = mutable_data_of<T>(output),
      .output_stride_n = output.stride(0),
      .output_stride_y = output.stride(2),
      .output_stride_x = output.stride(3),
  };
  const auto workers = static_cast<int>(torch::stable::get_num_threads());
  fused::run(arguments, workers, workspace, [](int64_t count, FunctionRef<void(int64_t, int64_t)> body) {
    torch::stable::parallel_for(0, count, 1, body);
  });
  end_workspace();
}

}  // namespace

Tensor run_fused(const Tensor& input, const FusedLayer& layer) {
  const fused::Shape& shape = layer.shape;
  const int64_t factor = shape.shuffle;
  Tensor output = cpu_map({shape.batch, shape.out_channels() / (factor * factor), factor * shape.out_height(),
                           factor * shape.out_width()},
                          true, input);
  run_fused(input, layer, output);
  return output;
}

void run_fused(const Tensor& input, const FusedLayer& layer, Tensor& output) {
  if (output.numel() != 0) {
    dispatch_fused(input.scalar_type(), [&]<class T>(T) { run_as<T>(input, layer, output); });
  }
}

}  // namespace ghostsr::ops
