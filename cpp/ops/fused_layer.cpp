#include "ops/fused_layer.h"

#include <torch/csrc/stable/ops.h>

#include "ops/dispatch.h"
#include "ops/layout.h"
#include "ops/map_memory.h"

namespace ghostsr::ops {
namespace {

// The kernel reads the bias and the residual as dense runs.
OptionalTensor dense(const OptionalTensor& tensor) {
  if (!tensor.has_value()) {
    return std::nullopt;
  }
  if (tensor->dim() == 4) {
    return densely_laid_out(*tensor, true);
  }
  return tensor->is_contiguous() ? *tensor : torch::stable::contiguous(*tensor);
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
  if (output.numel() == 0) {
    return;
  }
  const OptionalTensor bias = dense(layer.bias);
  const OptionalTensor residual = dense(layer.residual);
  const fused::Arguments arguments{
      .shape = layer.shape,
      .input = data_of<float>(input),
      .input_stride_n = input.stride(0),
      .input_stride_y = input.stride(2),
      .input_stride_x = input.stride(3),
      .packed_weight = data_of<float>(layer.packed_weight),
      .bias = data_of<float>(bias),
      .channels = &layer.channels,
      .groups = layer.groups,
      .residual = data_of<float>(residual),
      .residual_scale = static_cast<float>(layer.residual_scale),
      .activation = layer.activation,
      .output = mutable_data_of<float>(output),
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

}  // namespace ghostsr::ops
