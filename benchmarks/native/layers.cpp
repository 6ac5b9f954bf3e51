// Whole layers of published networks: dense, and at a ghost ratio of 0.5 with and without a residual.
//
// direct_flops counts the multiply-adds of the dense layer's definition, so that a ghost layer and a Winograd
// one may pass the ceiling; ceiling_share is theirs over what the measured peak could do in the same time.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "ceilings.h"
#include "core/fused/convolution.h"
#include "workers.h"

namespace ghostsr::bench {
namespace {

using fused::Arguments;
using fused::Shape;

struct NamedLayer {
  const char* name;
  std::int64_t in;
  std::int64_t out;
  std::int64_t height;
  std::int64_t width;
  std::int64_t groups = 1;
  std::int64_t kernel = 3;
};

constexpr NamedLayer kLayers[] = {
    {"edsr_baseline_body", 64, 64, 64, 64},
    {"edsr_baseline_body", 64, 64, 128, 128},
    {"edsr_baseline_body", 64, 64, 256, 256},
    {"edsr_baseline_body", 64, 64, 512, 512},
    {"edsr_baseline_body", 64, 64, 1024, 1024},
    {"edsr_baseline_body", 64, 64, 2048, 2048},
    {"edsr_baseline_upsampler", 64, 256, 128, 128},
    {"edsr_body", 256, 256, 48, 48},
    {"edsr_body", 256, 256, 96, 96},
    {"rdn_dense_layer_1", 64, 64, 96, 96},
    {"rdn_dense_layer_8", 512, 64, 96, 96},
    {"carn_body", 64, 64, 180, 320},
    {"carn_fusion_1", 128, 64, 96, 96, 1, 1},
    {"carn_fusion_3", 256, 64, 96, 96, 1, 1},
    {"carn_m_body", 64, 64, 96, 96, 4},
    {"carn_m_body_pointwise", 64, 64, 96, 96, 1, 1},
    {"carn_m_upsampler", 64, 256, 96, 96, 4},
    {"carn_m_reduced_body", 32, 32, 180, 320},
};

enum class Kind { dense, ghost, ghost_residual };

class LayerData {
 public:
  LayerData(const NamedLayer& layer, Kind kind) {
    const std::int64_t ghost = kind == Kind::dense ? 0 : layer.out / 2;
    Shape& shape = arguments.shape;
    const std::int64_t padding = (layer.kernel - 1) / 2;
    shape = Shape{1,     layer.in, layer.height, layer.width,  layer.out - ghost,
                  ghost, padding,  padding,      layer.groups, layer.kernel};
    input.assign(static_cast<std::size_t>(layer.height * layer.width * layer.in), 0.5F);
    output.resize(static_cast<std::size_t>(layer.height * layer.width * layer.out));
    const fused::WeightSize size = shape.weight_size();
    const std::int64_t taps = size.kernel * size.kernel;
    weight.assign(static_cast<std::size_t>(shape.intrinsic * size.in * taps), 0.01F);
    packed.resize(fused::packed_size(size));
    fused::pack({weight.data(), size, size.out * size.in * taps, size.in * taps, taps, size.kernel, 1},
                packed.data(), Workers(1));
    bias.assign(static_cast<std::size_t>(shape.intrinsic), 0.1F);

    // Neighbouring channels come from unrelated places, as in a converted network.
    std::vector<std::int64_t> source;
    std::vector<std::int64_t> shift;
    std::vector<std::int64_t> order;
    for (std::int64_t index = 0; index < ghost; ++index) {
      source.push_back(index * 7 % shape.intrinsic);
      shift.push_back(index % 3 - 1);
      shift.push_back(index / 3 % 3 - 1);
    }
    for (std::int64_t index = 0; index < layer.out; ++index) {
      order.push_back(ghost == 0 ? index : index * 29 % layer.out);
    }
    channels = make_channel_plan(shape.intrinsic, ghost, source.data(), shift.data(), nullptr, nullptr,
                                 order.data());

    arguments.input = input.data();
    arguments.input_stride_n = layer.height * layer.width * layer.in;
    arguments.input_stride_y = layer.width * layer.in;
    arguments.input_stride_x = layer.in;
    arguments.packed_weight = packed.data();
    arguments.bias = bias.data();
    arguments.channels = &channels;
    if (kind == Kind::ghost_residual) {
      residual.assign(output.size(), 1.0F);
      arguments.residual = residual.data();
    } else {
      arguments.activation.kind = ActivationKind::relu;
    }
    arguments.output = output.data();
    arguments.output_stride_n = layer.height * layer.width * layer.out;
    arguments.output_stride_y = layer.width * layer.out;
    arguments.output_stride_x = layer.out;
  }
  LayerData(const LayerData&) = delete;
  LayerData& operator=(const LayerData&) = delete;

  Arguments arguments;

 private:
  std::vector<float> input;
  std::vector<float> weight;
  std::vector<float> packed;
  std::vector<float> bias;
  std::vector<float> residual;
  std::vector<float> output;
  ChannelPlan channels;
};

void run_layer(benchmark::State& state, const NamedLayer& layer, Kind kind, int threads) {
  const LayerData data(layer, kind);
  Workers workers(threads);
  std::vector<float> workspace;
  const auto take = [&](std::size_t floats) {
    workspace.resize(floats);
    return workspace.data();
  };
  for (auto _ : state) {
    fused::run(data.arguments, threads, take, workers);
  }
  const auto pixels = static_cast<double>(layer.height * layer.width);
  const auto taps = static_cast<double>(layer.kernel * layer.kernel);
  const double flops = 2.0 * taps * pixels * static_cast<double>(layer.in / layer.groups * layer.out);
  const double streams = static_cast<double>(layer.in + layer.out * (kind == Kind::ghost_residual ? 2 : 1));
  using benchmark::Counter;
  state.counters["direct_flops"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["ceiling_share"] =
      Counter(flops / (ceilings().flops_per_second * threads), Counter::kIsIterationInvariantRate);
  state.counters["bytes"] = Counter(4.0 * pixels * streams, Counter::kIsIterationInvariantRate);
  state.counters["workspace_bytes"] = static_cast<double>(workspace.size() * sizeof(float));
}

const char* kind_name(Kind kind) {
  return kind == Kind::dense ? "dense" : kind == Kind::ghost ? "ghost" : "ghost_residual";
}

const bool registered = [] {
  for (const NamedLayer& layer : kLayers) {
    for (const Kind kind : {Kind::dense, Kind::ghost, Kind::ghost_residual}) {
      for (const int threads : {1, 2}) {
        const std::string name = std::string("layer/") + layer.name + "/" + kind_name(kind) + "/" +
                                 std::to_string(layer.height) + "x" + std::to_string(layer.width) +
                                 "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(
            name.c_str(),
            [layer, kind, threads](benchmark::State& state) { run_layer(state, layer, kind, threads); })
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace ghostsr::bench
