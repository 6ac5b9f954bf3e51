#include "ops/convolution_path.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <utility>

#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/convolution.h"

namespace ghostsr::ops {
namespace {

// "winograd", "pointwise" and "direct" force that path wherever it is possible at all, and torch's elsewhere.
enum class PathChoice { unread, automatic, aten, winograd, pointwise, direct };

constexpr std::array<std::pair<const char*, PathChoice>, 5> kChoices{{{"auto", PathChoice::automatic},
                                                                      {"aten", PathChoice::aten},
                                                                      {"winograd", PathChoice::winograd},
                                                                      {"pointwise", PathChoice::pointwise},
                                                                      {"direct", PathChoice::direct}}};

std::atomic<PathChoice> chosen{PathChoice::unread};

PathChoice parse(const char* origin, const std::string& text) {
  for (const auto& [name, choice] : kChoices) {
    if (text == name) {
      return choice;
    }
  }
  fail(std::string(origin) + ": found \"" + text +
       "\"; auto, aten, winograd, pointwise or direct is allowed");
}

// The environment is read once; later changes come through the operator.
PathChoice path_choice() {
  PathChoice choice = chosen.load(std::memory_order_relaxed);
  if (choice == PathChoice::unread) {
    const char* text = std::getenv("GHOSTSR_CONVOLUTION");
    choice =
        text == nullptr ? PathChoice::automatic : parse("environment variable GHOSTSR_CONVOLUTION", text);
    chosen.store(choice, std::memory_order_relaxed);
  }
  return choice;
}

// Returns the choice before.
std::string choose_convolution_path(const Name& path) {
  const PathChoice before = path_choice();
  chosen.store(parse("path", path.text), std::memory_order_relaxed);
  for (const auto& [name, choice] : kChoices) {
    if (choice == before) {
      return name;
    }
  }
  return "auto";
}

bool are_one(const IntList& pair) { return pair[0] == 1 && pair[1] == 1; }

}  // namespace

fused::Shape fused_shape(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry,
                         int64_t ghosts, int64_t shuffle) {
  return {.batch = input.size(0),
          .in_channels = input.size(1),
          .height = input.size(2),
          .width = input.size(3),
          .intrinsic = weight.size(0),
          .ghost = ghosts,
          .padding_y = geometry.padding[0],
          .padding_x = geometry.padding[1],
          .groups = geometry.groups,
          .kernel = weight.size(2),
          .shuffle = shuffle};
}

ConvolutionPath own_path(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry) {
  const bool half = input.scalar_type() == ScalarType::BFloat16;
  const bool possible = (half || input.scalar_type() == ScalarType::Float) && are_one(geometry.stride) &&
                        are_one(geometry.dilation) && weight.size(2) == weight.size(3) &&
                        (input.stride(1) == 1 || input.size(1) == 1) &&
                        convolves_to_channels_last(input, weight);
  if (!possible) {
    return ConvolutionPath::aten;
  }
  const IntList& padding = geometry.padding;
  if (weight.size(2) == 3 && padding[0] <= fused::kMaxPadding && padding[1] <= fused::kMaxPadding) {
    return half ? ConvolutionPath::direct : ConvolutionPath::winograd;
  }
  if (weight.size(2) == 1 && padding[0] == 0 && padding[1] == 0) {
    return half ? ConvolutionPath::direct : ConvolutionPath::pointwise;
  }
  return ConvolutionPath::aten;
}

bool takes_own_path(ConvolutionPath own, const fused::Shape& shape, bool packed) {
  if (own == ConvolutionPath::aten) {
    return false;
  }
  switch (path_choice()) {
    case PathChoice::winograd:
      return own == ConvolutionPath::winograd;
    case PathChoice::pointwise:
      return own == ConvolutionPath::pointwise;
    case PathChoice::direct:
      return own == ConvolutionPath::direct;
    case PathChoice::aten:
      return false;
    default:
      return own == ConvolutionPath::direct ? fused::should_use_fused_bfloat16(shape)
                                            : fused::should_use_fused(shape, packed);
  }
}

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CompositeExplicitAutograd, library) {
  library.impl("choose_convolution_path", GHOSTSR_BOX(&choose_convolution_path));
}

}  // namespace ghostsr::ops
