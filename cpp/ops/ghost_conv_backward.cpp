#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <tuple>

#include "core/undo_shuffle.h"
#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/convolution_backward.h"
#include "ops/dispatch.h"
#include "ops/ghost_gradient.h"
#include "ops/ghost_sums.h"
#include "ops/layout.h"
#include "ops/map_memory.h"
#include "ops/shift_concat.h"
#include "ops/tables.h"
#include "ops/threads.h"

namespace ghostsr::ops {
namespace {

constexpr size_t kGradients = 5;  // of input, weight, bias, ghost_bias and residual
constexpr int64_t kLargestFactor = 1 << 15;

// How a layer ended.
struct Ending {
  const Name& activation;
  double negative_slope;
  const OptionalTensor& output;
};

// The gradient of a map before its activation and the pixel shuffle behind that, channels_last.
Tensor before_shuffle(const Tensor& grad_output, const Ending& ending, int64_t factor) {
  // An empty map has every factor for a divisor.
  if (factor < 1 || factor > kLargestFactor || grad_output.size(2) % factor != 0 ||
      grad_output.size(3) % factor != 0) {
    fail("shuffle: found " + std::to_string(factor) +
         "; a divisor of the height and width of grad_output is needed");
  }
  const int64_t channels = grad_output.size(1) * factor * factor;
  const ActivationKind kind =
      check_activation({ending.activation, ending.negative_slope, std::nullopt}, channels, grad_output);
  const OptionalTensor& output = ending.output;
  if (kind != ActivationKind::none) {
    if (!output.has_value()) {
      fail("output: found None; the output is needed to undo the activation");
    }
    const IntList size{grad_output.size(0), grad_output.size(1), grad_output.size(2), grad_output.size(3)};
    check_like_output("output", *output, size, grad_output);
  }
  Tensor result =
      cpu_map({grad_output.size(0), channels, grad_output.size(2) / factor, grad_output.size(3) / factor},
              true, grad_output);
  if (result.numel() == 0) {
    return result;
  }
  dispatch_floating(grad_output.scalar_type(), [&]<typename T>(T) {
    const UndoShuffleParams<T> params{
        .extent = extent_of(result),
        .channels = grad_output.size(1),
        .factor = factor,
        .grad_output = data_of<T>(grad_output),
        .grad_output_strides = strides_of(grad_output),
        .activation = kind,
        .slope = ending.negative_slope,
        .output = data_of<T>(output),
        .output_strides = strides_of(output),
        .result = mutable_data_of<T>(result),
        .result_strides = strides_of(result),
    };
    const int64_t rows = result.size(0) * result.size(2);
    parallel(rows, result.numel() / rows,
             [&](int64_t begin, int64_t end) { undo_shuffle(params, begin, end); });
  });
  return result;
}

// Whether each output is the intrinsic channel of its number, as it was computed.
bool is_copied(const GhostTables& tables, double residual_scale) {
  return tables.source.size(0) == 0 && !tables.order.has_value() && residual_scale == 1;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> ghost_conv_backward_cpu(
    const Tensor& grad_output, const OptionalTensor& input, const OptionalTensor& weight,
    const Tensor& source, const Tensor& shift, const OptionalTensor& gain, const OptionalTensor& order,
    const OptionalTensor& given_output, const IntList& stride, const IntList& padding,
    const IntList& dilation, int64_t groups, const Name& given_activation, double negative_slope,
    double residual_scale, int64_t shuffle, const std::vector<bool>& output_mask) {
  if (output_mask.size() != kGradients) {
    fail("output_mask: found " + std::to_string(output_mask.size()) + " values; 5 are needed");
  }
  check_map("grad_output", grad_output);
  const std::array<bool, 3> of_convolution{output_mask[0], output_mask[1], output_mask[2]};
  const bool convolves = output_mask[0] || output_mask[1] || output_mask[2];
  if (convolves && !(input.has_value() && weight.has_value())) {
    fail("input, weight: found None; both are needed for the gradients of the convolution");
  }
  const Name none{"none"};
  const bool shuffled = shuffle != 1;
  const Tensor gradient =
      shuffled ? before_shuffle(grad_output, {given_activation, negative_slope, given_output}, shuffle)
               : grad_output;
  const OptionalTensor nothing;
  const OptionalTensor& output = shuffled ? nothing : given_output;
  const Name& activation = shuffled ? none : given_activation;
  const GhostTables tables{source, &shift, gain, nothing, order};
  const GhostGradient checked = check_ghost_gradient(
      gradient, tables, nothing, output, {activation, negative_slope, nothing}, residual_scale, false);
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  if (convolves) {
    check_convolution(*input, *weight, nothing, geometry);
    const IntList size = convolved_size(*input, *weight, geometry);
    check_like_output("grad_output", gradient,
                      {input->size(0), weight->size(0) + source.size(0), size[0], size[1]}, *input);
  }

  std::array<Tensor, kGradients> results;
  for (Tensor& result : results) {
    result = empty_vector({0}, gradient);
  }
  const bool channels_last = prefers_channels_last(output.has_value() ? *output : gradient);
  const bool undone = checked.mask_source == MaskSource::none;
  const bool copied = is_copied(tables, residual_scale);
  // One pass gives both, unless they are the same or another pass is the only one.
  const bool in_one_pass =
      output_mask[4] && convolves && !undone && !copied && channels_last && checked.intrinsic_channels > 1;
  const bool residual_first = output_mask[4] && !in_one_pass;
  Tensor seen = gradient;  // what the activation saw, where that is known
  if (residual_first && undone) {
    // Results must not alias arguments.
    results[4] = shuffled ? gradient : densely_laid_out(torch::stable::clone(gradient), channels_last);
  } else if (residual_first) {
    const ChannelPlan plan =
        make_channel_plan(gradient.size(1), 0, nullptr, nullptr, nullptr, nullptr, nullptr);
    const GhostGradient of_residual{
        gradient,           nothing, output, gradient.size(1), 1.0, checked.activation, checked.slope,
        checked.mask_source};
    seen = results[4] = intrinsic_gradient(LaidOutGradient(of_residual), plan, nullptr);
  }
  const bool is_seen = undone || residual_first;
  const GhostGradient of_seen{
      seen, nothing,         nothing, checked.intrinsic_channels, residual_scale, ActivationKind::none,
      0.0,  MaskSource::none};
  const GhostGradient& of_layer = is_seen ? of_seen : checked;
  const LaidOutGradient laid(of_layer);
  if (convolves || output_mask[3]) {
    const ChannelPlan plan = read_tables(tables, checked.intrinsic_channels);
    if (convolves) {
      OptionalTensor grad_residual;
      const Tensor grad_intrinsic =
          is_seen && copied ? seen : intrinsic_gradient(laid, plan, in_one_pass ? &grad_residual : nullptr);
      if (grad_residual.has_value()) {
        results[4] = *grad_residual;
      }
      std::tie(results[0], results[1], results[2]) =
          convolution_gradients(grad_intrinsic, *input, *weight, geometry, of_convolution);
    }
    if (output_mask[3]) {
      results[3] = to_vector(ghost_sums(laid, plan, GhostSum::total, 0), {source.size(0)}, gradient);
    }
  }
  return {results[0], results[1], results[2], results[3], results[4]};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) {
  library.impl("ghost_conv_backward", GHOSTSR_BOX(&ghost_conv_backward_cpu));
}

}  // namespace ghostsr::ops
