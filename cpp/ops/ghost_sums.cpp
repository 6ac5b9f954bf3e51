#include "ops/ghost_sums.h"

#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/layout.h"
#include "ops/threads.h"

namespace ghostsr::ops {

LaidOutGradient::LaidOutGradient(const GhostGradient& checked)
    : gradient(checked),
      channels_last(prefers_channels_last(checked.output.has_value()      ? *checked.output
                                          : checked.intrinsic.has_value() ? *checked.intrinsic
                                                                          : checked.grad_output)),
      grad_output(laid_out(checked.grad_output, channels_last)),
      output(laid_out(checked.output, channels_last)),
      intrinsic(laid_out(checked.intrinsic, channels_last)),
      slopes(checked.activation == ActivationKind::leaky ? checked.grad_output.size(1) : 0, checked.slope) {}

std::vector<double> ghost_sums(const LaidOutGradient& maps, const ChannelPlan& plan, GhostSum kind,
                               int64_t max_shift) {
  const GhostGradient& gradient = maps.gradient;
  const Tensor& grad_output = maps.grad_output;
  const auto ghosts = static_cast<int64_t>(plan.ghost_outputs.size());
  return dispatch_floating(grad_output.scalar_type(), [&]<typename T>(T) {
    const GhostSumParams<T> params{
        .extent = extent_of(grad_output),
        .intrinsic_channels = gradient.intrinsic_channels,
        .ghosts = ghosts,
        .origins = plan.origins.data(),
        .ghost_outputs = plan.ghost_outputs.data(),
        .radius = plan.radius,
        .grad_output = data_of<T>(grad_output),
        .grad_output_strides = strides_of(grad_output),
        .activation = maps.activation(),
        .mask_source = gradient.mask_source,
        .output = data_of<T>(maps.output),
        .output_strides = strides_of(maps.output),
        .intrinsic = data_of<T>(maps.intrinsic),
        .intrinsic_strides = strides_of(maps.intrinsic),
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
