#include "core/fused/convolution.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "core/fused/blocking.h"
#include "core/fused/channel_groups.h"
#include "core/fused/packed_weight.h"
#include "core/fused/rounding.h"
#include "core/fused/stages.h"
#include "core/fused/strip.h"
#include "core/simd/kernels.h"

namespace ghostsr::fused {
namespace {

// Sizes of a picture and of its rows are kept in int.
constexpr std::int64_t kLargestSize = std::numeric_limits<int>::max() / 64;

// Outputs larger than this leave the caches before they are read again.
constexpr std::int64_t kStreamedFloats = std::int64_t{256} * 1024;

void check_range(const char* name, std::int64_t value, std::int64_t least, std::int64_t greatest) {
  if (value < least || value > greatest) {
    throw std::invalid_argument(std::string("fused convolution: ") + name + " is " + std::to_string(value) +
                                ", but must be between " + std::to_string(least) + " and " +
                                std::to_string(greatest));
  }
}

void check_divides(const char* name, std::int64_t value, std::int64_t count, const char* parts) {
  if (value % count != 0) {
    throw std::invalid_argument(std::string("fused convolution: ") + name + " is " + std::to_string(value) +
                                ", but must be a multiple of the " + std::to_string(count) + " " + parts);
  }
}

template <class T>
void check_shuffle(const ArgumentsOf<T>& arguments) {
  const Shape& shape = arguments.shape;
  check_range("the factor of the pixel shuffle", shape.shuffle, 1, shape.out_channels());
  check_divides("the number of output channels", shape.out_channels(), shape.shuffle * shape.shuffle,
                "pixels of the pixel shuffle");
  if (shape.shuffle > 1) {
    const std::int64_t pixel = shape.row_channels() / shape.shuffle;
    check_range("the output's stride between shuffled pixels", arguments.output_stride_x, pixel, pixel);
    if (arguments.residual != nullptr) {
      throw std::invalid_argument("fused convolution: a pixel shuffle takes no residual");
    }
  }
}

template <class T>
void check(const ArgumentsOf<T>& arguments, int workers) {
  const Shape& shape = arguments.shape;
  check_range("the number of workers", workers, 1, kLargestSize);
  check_range("the batch", shape.batch, 0, std::numeric_limits<int>::max());
  check_range("the number of input channels", shape.in_channels, 1, kLargestSize);
  check_range("the number of intrinsic channels", shape.intrinsic, 1, kLargestSize);
  check_range("the number of ghost channels", shape.ghost, 0, kLargestSize);
  check_range("the number of groups", shape.groups, 1, std::min(shape.in_channels, shape.intrinsic));
  check_divides("the number of input channels", shape.in_channels, shape.groups, "groups");
  check_divides("the number of intrinsic channels", shape.intrinsic, shape.groups, "groups");
  if (shape.kernel != 1 && shape.kernel != 3) {
    throw std::invalid_argument("fused convolution: the kernel is " + std::to_string(shape.kernel) +
                                ", but must be 1 or 3");
  }
  const std::int64_t most_padding = shape.kernel == 1 ? 0 : kMaxPadding;
  check_range("the padding along y", shape.padding_y, 0, most_padding);
  check_range("the padding along x", shape.padding_x, 0, most_padding);
  check_range("the output's height", shape.out_height(), 1, kLargestSize);
  check_range("the output's width", shape.out_width(), 1, kLargestSize);
  if (arguments.channels == nullptr) {
    throw std::invalid_argument("fused convolution: the channel plan is missing");
  }
  check_range("the channel plan's intrinsic channels", arguments.channels->intrinsic_channels,
              shape.intrinsic, shape.intrinsic);
  check_range("the channel plan's output channels",
              static_cast<std::int64_t>(arguments.channels->origins.size()), shape.out_channels(),
              shape.out_channels());
  check_shuffle(arguments);
  check_range("the largest shift", arguments.channels->radius, 0, kMaxShift);
}

template <class T>
const Stages& stages_of(const ArgumentsOf<T>& arguments) {
  return arguments.stages != nullptr ? *arguments.stages : *kernels().fused;
}

// Floats of the slopes of each shuffled row.
std::size_t slope_count(const Shape& shape) {
  return static_cast<std::size_t>(round_up(kMostLanes, shape.row_channels()) + kMostLanes);
}

// For each shuffled row the slopes of whole pixels one after another, as far as a vector that begins in the
// first of them reaches.
std::vector<float> repeated_slopes(const Activation& activation, const Shape& shape) {
  std::vector<float> slopes;
  if (activation.kind == ActivationKind::leaky) {
    const std::vector<std::int64_t> written = written_channels(shape.out_channels(), shape.shuffle);
    const auto channels = static_cast<std::size_t>(shape.row_channels());
    for (std::size_t row = 0; row < written.size(); row += channels) {
      for (std::size_t index = 0; index < slope_count(shape); ++index) {
        slopes.push_back(static_cast<float>(activation.slopes[written[row + index % channels]]));
      }
    }
  }
  return slopes;
}

template <class T>
Method method_of(const Shape& shape) {
  return std::is_same_v<T, BFloat16> ? Method::direct
         : shape.kernel == 1         ? Method::pointwise
                                     : Method::winograd;
}

}  // namespace

template <class T>
void run(const ArgumentsOf<T>& arguments, int workers, WorkspaceSource workspace, ParallelFor parallel) {
  check(arguments, workers);
  const Shape& shape = arguments.shape;
  if (shape.batch == 0) {
    return;
  }
  const ChannelPlan& channels = *arguments.channels;

  ConvolutionCall<T> call{};
  call.arguments = &arguments;
  call.stages = &stages_of(arguments);
  call.blocking =
      make_blocking(shape, method_of<T>(shape), channels.radius, workers, call.stages->kernel_rows);
  call.layout = make_workspace_layout(shape, call.blocking, workers);
  constexpr std::uintptr_t kLineBytes = kLineFloats * sizeof(float);
  call.workspace = workspace(call.layout.total + kLineFloats);
  const std::uintptr_t misaligned = reinterpret_cast<std::uintptr_t>(call.workspace) % kLineBytes;
  call.workspace += misaligned == 0 ? 0 : (kLineBytes - misaligned) / sizeof(float);

  std::vector<ChannelGroup> groups;
  if (arguments.groups == nullptr) {
    groups = make_channel_groups(channels, shape.weight_size());
  }
  const std::int64_t output_floats =
      shape.batch * shape.out_height() * shape.out_width() * shape.out_channels();
  call.epilogue.groups = arguments.groups == nullptr ? groups.data() : arguments.groups;
  call.epilogue.out_channels = static_cast<int>(shape.row_channels());
  call.epilogue.intrinsic_channels = call.blocking.padded_intrinsic;
  call.epilogue.chunk_pixels = call.blocking.chunk_pixels;
  call.epilogue.affine = channels.affine;
  call.epilogue.in_order = !channels.affine && channels.radius == 0 &&
                           are_in_order(call.epilogue.groups, shape.row_channels(), shape.shuffle);
  call.epilogue.scale = arguments.residual_scale;
  const std::vector<float> slopes = repeated_slopes(arguments.activation, shape);
  call.epilogue.activation = arguments.activation.kind;
  call.epilogue.slopes = slopes.data();
  call.epilogue.slope_period = static_cast<int>(slope_count(shape)) - kMostLanes;
  call.epilogue.stream = output_floats > kStreamedFloats;

  float* bias = call.workspace + call.layout.bias;
  std::fill(bias, bias + call.blocking.padded_intrinsic, 0.0F);
  if (arguments.bias != nullptr) {
    const WeightSize size = shape.weight_size();
    for (std::int64_t channel = 0; channel < shape.intrinsic; ++channel) {
      bias[channel / size.out * call.blocking.padded_group + place_of(size, channel % size.out)] =
          arguments.bias[channel];
    }
  }
  float* zero_row = call.workspace + call.layout.zero_row;
  std::fill(zero_row, zero_row + call.blocking.row_floats, 0.0F);
  auto* arrivals = reinterpret_cast<std::int32_t*>(call.workspace + call.layout.boundary_arrivals);
  std::fill(arrivals, arrivals + call.blocking.boundaries(shape.batch), 0);

  const std::int64_t strips = shape.batch * call.blocking.strips;
  std::atomic<std::int64_t> next{0};
  parallel(std::min<std::int64_t>(workers, strips), [&](std::int64_t begin, std::int64_t) {
    StripRunner<T> runner(call, static_cast<int>(begin));
    for (std::int64_t strip = next.fetch_add(1, std::memory_order_relaxed); strip < strips;
         strip = next.fetch_add(1, std::memory_order_relaxed)) {
      runner.run(strip);
    }
    call.stages->fence();
  });
}

template void run(const ArgumentsOf<float>&, int, WorkspaceSource, ParallelFor);
template void run(const ArgumentsOf<BFloat16>&, int, WorkspaceSource, ParallelFor);

namespace {

// Measured against torch's convolutions on one thread (docs/speed.md, "Single layers"); sizes of packed
// weights are in floats.
bool winograd_wins(const Shape& shape) {
  // With fewer channels in a group the input's transform costs more than the products save.
  constexpr std::int64_t kFewestChannels = 8;
  // A lower or narrower map wastes most of each tile.
  constexpr std::int64_t kSmallestMap = 4;
  // A map of few tiles is bound by reading the weights, which are four times as large as the direct form's.
  constexpr std::int64_t kFewestTiles = 6;
  constexpr std::size_t kCachedWeights = std::size_t{256} * 1024;

  const std::int64_t tiles = ceil_div(shape.out_height(), 4) * ceil_div(shape.out_width(), 4);
  return shape.weight_size().in >= kFewestChannels && shape.out_height() >= kSmallestMap &&
         shape.out_width() >= kSmallestMap &&
         (tiles >= kFewestTiles || packed_size(shape.weight_size()) <= kCachedWeights);
}

bool pointwise_wins(const Shape& shape) {
  // Output channels are padded to eight in each group; of fewer ones most work is lost.
  constexpr std::int64_t kFewestOutputs = 3;
  // A map of few pixels is bound by reading the weights, once more to recognise them than torch does.
  constexpr std::int64_t kFewestPixels = 128;
  constexpr std::size_t kCachedWeights = std::size_t{128} * 1024;

  return shape.weight_size().out >= kFewestOutputs &&
         (shape.height * shape.width >= kFewestPixels || packed_size(shape.weight_size()) <= kCachedWeights);
}

// The smallest map, in pixels of all pictures, for which a weight is packed anew.
std::int64_t pixels_worth_packing(const WeightSize& size) {
  const std::size_t floats = packed_size(size);
  if (floats <= 16 * 1024) {
    return 16;
  }
  if (size.kernel == 1) {
    return 256;
  }
  return floats <= 256 * 1024 ? 100 : 800;
}

}  // namespace

bool should_use_fused(const Shape& shape, bool packed) {
  const std::int64_t pixels = shape.batch * shape.out_height() * shape.out_width();
  return (packed || pixels >= pixels_worth_packing(shape.weight_size())) &&
         (shape.kernel == 1 ? pointwise_wins(shape) : winograd_wins(shape));
}

bool should_use_fused_bfloat16(const Shape& shape) {
  // A narrower map leaves most of each tile empty.
  constexpr std::int64_t kNarrowestMap = 8;
  return kernels().fused->has_tiles && shape.out_width() >= kNarrowestMap;
}

}  // namespace ghostsr::fused
