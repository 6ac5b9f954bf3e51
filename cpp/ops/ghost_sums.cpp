#include "ops/ghost_sums.h"

#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/layout.h"
#include "ops/threads.h"

namespace ghostsr::ops {

GhostGradient check_ghost_gradient(const Tensor& grad_output, const GhostTables& tables,
                                   const OptionalTensor& intrinsic, const OptionalTensor& output,
                                   const ActivationName& activation, double residual_scale,
                                   bool needs_intrinsic) {
  check_map("grad_output", grad_output);
  const int64_t ghosts = tables.source.dim() == 1 ? tables.source.size(0) : 0;
  const int64_t intrinsic_channels = grad_output.size(1) - ghosts;
  if (intrinsic_channels < 1) {
    fail("grad_output: found " + std::to_string(grad_output.size(1)) + " channels; more than the " +
         std::to_string(ghosts) + " ghosts are needed");
  }
  check_tables(tables, intrinsic_channels, grad_output);
  const bool relu = check_activation(activation);
  const IntList size{grad_output.size(0), grad_output.size(1), grad_output.size(2), grad_output.size(3)};
  if (output.has_value()) {
    check_like_output("output", *output, size, grad_output);
  }
  if (intrinsic.has_value()) {
    check_like_output("intrinsic", *intrinsic, {size[0], intrinsic_channels, size[2], size[3]}, grad_output);
  } else if (needs_intrinsic) {
    fail("intrinsic: found None; the map is needed for the gradient of the gain");
  }
  if (relu && !output.has_value() && !intrinsic.has_value()) {
    fail("output: found None; the output, or without a residual the intrinsic map, is needed to undo a ReLU");
  }
  const ReluWitness witness = !relu                ? ReluWitness::none
                              : output.has_value() ? ReluWitness::output
                                                   : ReluWitness::intrinsic;
  return {grad_output, intrinsic, output, intrinsic_channels, residual_scale, witness};
}

std::vector<double> ghost_sums(const GhostGradient& gradient, const ChannelPlan& plan, GhostSum kind,
                               int64_t max_shift) {
  const Tensor& grad_output = gradient.grad_output;
  const auto ghosts = static_cast<int64_t>(plan.ghost_outputs.size());
  return dispatch_floating(grad_output.scalar_type(), [&]<typename T>(T) {
    const GhostSumParams<T> params{
        .extent = extent_of(grad_output),
        .ghosts = ghosts,
        .origins = plan.origins.data(),
        .ghost_outputs = plan.ghost_outputs.data(),
        .grad_output = data_of<T>(grad_output),
        .grad_output_strides = strides_of(grad_output),
        .witness = gradient.witness,
        .output = data_of<T>(gradient.output),
        .output_strides = gradient.output.has_value() ? strides_of(*gradient.output) : Strides{},
        .intrinsic = data_of<T>(gradient.intrinsic),
        .intrinsic_strides = gradient.intrinsic.has_value() ? strides_of(*gradient.intrinsic) : Strides{},
        .residual_scale = gradient.residual_scale,
        .kind = kind,
        .max_shift = static_cast<int32_t>(max_shift),
    };
    const int64_t parts = grad_output.numel() == 0 ? 0 : ghost_sum_parts(params);
    const int64_t count = ghosts * ghost_sum_width(params);
    std::vector<double> partial(parts * count);
    if (parts > 0 && count > 0) {
      parallel(parts, grad_output.numel() / parts,
               [&](int64_t begin, int64_t end) { ghost_sum(params, begin, end, partial.data()); });
    }
    std::vector<double> sums(count);
    reduce_parts(partial.data(), parts, count, sums.data());
    return sums;
  });
}

Tensor to_vector(const std::vector<double>& values, const IntList& size, const Tensor& like) {
  Tensor result = empty_vector(size, like);
  dispatch_floating(like.scalar_type(), [&]<typename T>(T) {
    T* data = mutable_data_of<T>(result);
    for (size_t index = 0; index < values.size(); ++index) {
      data[index] = T(static_cast<accumulator_t<T>>(values[index]));
    }
  });
  return result;
}

}  // namespace ghostsr::ops
