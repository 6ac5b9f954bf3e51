#include "ops/ghost_gradient.h"

#include "ops/checks.h"

namespace ghostsr::ops {

GhostGradient check_ghost_gradient(const Tensor& grad_output, const GhostTables& tables,
                                   const OptionalTensor& intrinsic, const OptionalTensor& output,
                                   const ActivationArguments& activation, double residual_scale,
                                   bool needs_intrinsic) {
  check_map("grad_output", grad_output);
  const int64_t ghosts = tables.source.dim() == 1 ? tables.source.size(0) : 0;
  const int64_t intrinsic_channels = grad_output.size(1) - ghosts;
  if (intrinsic_channels < 1) {
    fail("grad_output: found " + std::to_string(grad_output.size(1)) + " channels; more than the " +
         std::to_string(ghosts) + " ghosts are needed");
  }
  check_tables(tables, intrinsic_channels, grad_output);
  if (activation.name.text == "prelu") {
    fail("activation: found \"prelu\"; its gradient is torch's own");
  }
  const ActivationKind kind = check_activation(activation, grad_output.size(1), grad_output);
  const IntList size{grad_output.size(0), grad_output.size(1), grad_output.size(2), grad_output.size(3)};
  if (output.has_value()) {
    check_like_output("output", *output, size, grad_output);
  }
  if (intrinsic.has_value()) {
    check_like_output("intrinsic", *intrinsic, {size[0], intrinsic_channels, size[2], size[3]}, grad_output);
  } else if (needs_intrinsic) {
    fail("intrinsic: found None; the map is needed for the gradient of the gain");
  }
  const bool undone = kind != ActivationKind::none;
  if (undone && !output.has_value() && !intrinsic.has_value()) {
    fail(
        "output: found None; the output, or without a residual the intrinsic map, is needed to undo the "
        "activation");
  }
  const MaskSource source = !undone              ? MaskSource::none
                            : output.has_value() ? MaskSource::output
                                                 : MaskSource::intrinsic;
  return {grad_output, intrinsic, output, intrinsic_channels, residual_scale, kind, activation.negative_slope,
          source};
}

}  // namespace ghostsr::ops
