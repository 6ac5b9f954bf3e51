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
  fail("environment variable GHOSTSR_CONVOLUTION: found \"" + std::string(text) +
       "\"; auto, aten or winograd is allowed");
}

winograd::Shape winograd_shape(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                               int64_t ghosts) {
  return {.batch = input.size(0),
          .in_channels = input.size(1),
          .height = input.size(2),
          .width = input.size(3),
          .intrinsic = weight.size(0),
          .ghost = ghosts,
          .padding_y = geometry.padding[0],
          .padding_x = geometry.padding[1]};
}

ConvolutionPath choose_path(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                            int64_t ghosts) {
  const PathChoice choice = path_choice();
  const bool possible =
      input.scalar_type() == ScalarType::Float && weight.size(2) == 3 && weight.size(3) == 3 &&
      geometry.stride == IntList{1, 1} && geometry.dilation == IntList{1, 1} && geometry.groups == 1 &&
      geometry.padding[0] <= winograd::kMaxPadding && geometry.padding[1] <= winograd::kMaxPadding &&
      (input.stride(1) == 1 || input.size(1) == 1) && convolves_to_channels_last(input, weight);
  if (!possible || choice == PathChoice::aten) {
    return ConvolutionPath::aten;
  }
  return choice == PathChoice::winograd ||
                 winograd::winograd_wins(winograd_shape(input, weight, geometry, ghosts))
             ? ConvolutionPath::winograd
             : ConvolutionPath::aten;
}

}  // namespace ghostsr::ops
