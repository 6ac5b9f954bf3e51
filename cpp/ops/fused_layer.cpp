#include "ops/fused_layer.h"

#include <torch/csrc/stable/ops.h>

#include "ops/dispatch.h"
#include "ops/layout.h"

namespace ghostsr::ops {
namespace {

// The kernel reads the bias and the residual as dense runs.
OptionalTensor dense(const OptionalTensor& tensor) {
  return tensor.has_value() ? OptionalTensor(torch::stable::contiguous(*tensor)) : tensor;
}

bool lies_like(const Tensor& map, const Tensor& other) {
  for (int64_t axis = 0; axis < map.dim(); ++axis) {
    if (map.size(axis) > 1 && map.stride(axis) != other.stride(axis)) {
      return false;
    }
  }
  return true;
}

OptionalTensor laid_like(const OptionalTensor& map, const Tensor& other) {
  if (!map.has_value() || lies_like(*map, other)) {
    return map;
  }
  Tensor relaid = empty_map({map->size(0), map->size(1), map->size(2), map->size(3)}, true, *map);
  torch::stable::copy_(relaid, *map);
  return relaid;
}

}  // namespace

Tensor run_fused(const Tensor& input, const fused::Shape& shape, const Tensor& packed_weight,
                 const OptionalTensor& bias, const ChannelPlan& plan, const LayerEpilogue& epilogue) {
  Tensor output =
      empty_map({shape.batch, shape.out_channels(), shape.out_height(), shape.out_width()}, true, input);
  if (output.numel() == 0) {
    return output;
  }
  const OptionalTensor dense_bias = dense(bias);
  const OptionalTensor residual = laid_like(epilogue.residual, output);
  const fused::Arguments arguments{
      .shape = shape,
      .input = data_of<float>(input),
      .input_stride_n = input.stride(0),
      .input_stride_y = input.stride(2),
      .input_stride_x = input.stride(3),
      .packed_weight = data_of<float>(packed_weight),
      .bias = data_of<float>(dense_bias),
      .channels = &plan,
      .residual = data_of<float>(residual),
      .residual_scale = static_cast<float>(epilogue.residual_scale),
      .activation = epilogue.activation,
      .output = mutable_data_of<float>(output),
  };
  const auto workers = static_cast<int>(torch::stable::get_num_threads());
  Tensor workspace;
  const auto take = [&](size_t floats) {
    workspace = empty_vector({static_cast<int64_t>(floats)}, input);
    return mutable_data_of<float>(workspace);
  };
  fused::run(arguments, workers, take, [](int64_t count, FunctionRef<void(int64_t, int64_t)> body) {
    torch::stable::parallel_for(0, count, 1, body);
  });
  return output;
}

}  // namespace ghostsr::ops
