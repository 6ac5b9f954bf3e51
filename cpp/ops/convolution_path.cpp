#include "ops/convolution_path.h"

#include <cstdlib>
#include <cstring>

#include "ops/checks.h"
#include "ops/convolution.h"

namespace ghostsr::ops {

PathChoice path_choice() {
  const char* text = std::getenv("GHOSTSR_CONVOLUTION");
  if (text == nullptr || std::strcmp(text, "auto") == 0) {
    return PathChoice::automatic;
  }
  if (std::strcmp(text, "aten") == 0) {
    return PathChoice::aten;
  }
  if (std::strcmp(text, "winograd") == 0) {
    return PathChoice::winograd;
  }
  if (std::strcmp(text, "pointwise") == 0) {
    return PathChoice::pointwise;
  }
  fail("environment variable GHOSTSR_CONVOLUTION: found \"" + std::string(text) +
       "\"; auto, aten, winograd or pointwise is allowed");
}

fused::Shape fused_shape(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                         int64_t ghosts) {
  return {.batch = input.size(0),
          .in_channels = input.size(1),
          .height = input.size(2),
          .width = input.size(3),
          .intrinsic = weight.size(0),
          .ghost = ghosts,
          .padding_y = geometry.padding[0],
          .padding_x = geometry.padding[1],
          .groups = geometry.groups,
          .kernel = weight.size(2)};
}

namespace {

// Our own path of a layer by its shape, or torch's.
ConvolutionPath own_path(const Tensor& weight, const ConvolutionGeometry& geometry) {
  if (weight.size(2) == 3 && weight.size(3) == 3 && geometry.padding[0] <= fused::kMaxPadding &&
      geometry.padding[1] <= fused::kMaxPadding) {
    return ConvolutionPath::winograd;
  }
  if (weight.size(2) == 1 && weight.size(3) == 1 && geometry.padding == IntList{0, 0}) {
    return ConvolutionPath::pointwise;
  }
  return ConvolutionPath::aten;
}

bool is_forced(ConvolutionPath path, PathChoice choice) {
  return (path == ConvolutionPath::winograd && choice == PathChoice::winograd) ||
         (path == ConvolutionPath::pointwise && choice == PathChoice::pointwise);
}

}  // namespace

ConvolutionPath choose_path(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                            int64_t ghosts) {
  const PathChoice choice = path_choice();
  const ConvolutionPath path = own_path(weight, geometry);
  const bool possible = path != ConvolutionPath::aten && input.scalar_type() == ScalarType::Float &&
                        geometry.stride == IntList{1, 1} && geometry.dilation == IntList{1, 1} &&
                        (input.stride(1) == 1 || input.size(1) == 1) &&
                        convolves_to_channels_last(input, weight);
  const bool taken = possible && (choice == PathChoice::automatic
                                      ? fused::fused_wins(fused_shape(input, weight, geometry, ghosts), true)
                                      : is_forced(path, choice));
  return taken ? path : ConvolutionPath::aten;
}

}  // namespace ghostsr::ops
