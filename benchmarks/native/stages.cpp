// The stages of one block of tiles, each by itself on one thread, at the block sizes that a layer uses.
#include "core/fused/stages.h"

#include <benchmark/benchmark.h>

#include <vector>

#include "ceilings.h"
#include "core/fused/blocking.h"
#include "core/fused/channel_groups.h"
#include "core/fused/convolution.h"
#include "core/fused/packed_weight.h"
#include "core/simd/kernels.h"

namespace ghostsr::bench {
namespace {

using namespace fused;
using benchmark::Counter;

// One block in the middle of a ghost layer of state.range(0) channels, on a map 96 pixels wide.
class Block {
 public:
  explicit Block(const benchmark::State& state)
      : channels(static_cast<int>(state.range(0))),
        stages(*kernels().fused),
        shape{1, channels, kHeight, kWidth, channels / 2, channels / 2, 1, 1},
        blocking(make_blocking(shape, Method::winograd, 1, 1, stages.kernel_rows)) {
    const auto size = [](std::ptrdiff_t floats) { return static_cast<std::size_t>(floats); };
    input.assign(size(std::ptrdiff_t{kHeight} * kWidth * channels), 0.5F);
    patch.resize(size(kComponents * std::ptrdiff_t{blocking.padded_in}));
    transformed.resize(size(kComponents * blocking.input_component_floats));
    products.resize(size(kComponents * blocking.output_component_floats));
    weight.assign(packed_size(shape.weight_size()), 0.01F);
    bias.assign(size(blocking.padded_intrinsic), 0.1F);
    rows.assign(size(blocking.buffer_rows * blocking.row_floats), 0.25F);
    chunk.resize(size(std::ptrdiff_t{blocking.chunk_pixels} * channels + kGroup));
    output.resize(size(std::ptrdiff_t{kWidth} * channels));
    map =
        InputMap{input.data(), std::ptrdiff_t{kWidth} * channels, channels, kHeight, kWidth, channels, 1, 1};
    // The second tile row, without its first tile: nothing is padded.
    const int columns = blocking.tile_columns;
    tiles = TileRun{columns + 1, std::min(blocking.block_tiles, columns - 2), columns};
    v = ComponentMatrices{transformed.data(), blocking.padded_in, blocking.input_component_floats};
    m = ComponentMatrices{products.data(), blocking.padded_intrinsic, blocking.output_component_floats};
    lines = LineBuffer{rows.data(), blocking.row_floats, blocking.buffer_rows, blocking.radius,
                       blocking.padded_intrinsic};
  }

  double pixels() const { return 16.0 * tiles.count; }

  static constexpr int kHeight = 12;
  static constexpr int kWidth = 96;
  int channels;
  const Stages& stages;
  Shape shape;
  Blocking blocking;
  InputMap map;
  TileRun tiles;
  ComponentMatrices v;
  ComponentMatrices m;
  LineBuffer lines;
  std::vector<float> input;
  std::vector<float> patch;
  std::vector<float> transformed;
  std::vector<float> products;
  std::vector<float> weight;
  std::vector<float> bias;
  std::vector<float> rows;
  std::vector<float> chunk;
  std::vector<float> output;
};

// Time for each 4x4 tile, and the share of the copy ceiling that the bytes read and written come to.
void report(benchmark::State& state, double tiles, double floats) {
  state.counters["tile_time"] = Counter(tiles, Counter::kIsIterationInvariantRate | Counter::kInvert);
  state.counters["bytes"] = Counter(4.0 * floats, Counter::kIsIterationInvariantRate);
  state.counters["copy_share"] =
      Counter(4.0 * floats / ceilings().copied_bytes_per_second, Counter::kIsIterationInvariantRate);
}

void input_transform(benchmark::State& state) {
  Block block(state);
  for (auto _ : state) {
    block.stages.transform_input(block.map, block.tiles, block.patch.data(), block.v);
    benchmark::ClobberMemory();
  }
  report(state, block.tiles.count, (block.pixels() + kComponents * block.tiles.count) * block.channels);
}
BENCHMARK(input_transform)->Name("stage/input_transform")->Arg(32)->Arg(64)->Arg(256);

void multiply(benchmark::State& state) {
  Block block(state);
  const Product product{{block.v.data, block.v.row_stride, block.v.component_stride},
                        block.m,
                        block.weight.data(),
                        nullptr,
                        kComponents,
                        block.tiles.count,
                        block.channels,
                        block.blocking.padded_intrinsic};
  for (auto _ : state) {
    block.stages.multiply(product);
    benchmark::ClobberMemory();
  }
  const double flops =
      2.0 * kComponents * block.tiles.count * block.channels * static_cast<double>(block.shape.intrinsic);
  report(state, block.tiles.count,
         static_cast<double>(kComponents) * block.tiles.count *
                 (block.channels + block.blocking.padded_intrinsic) +
             static_cast<double>(block.weight.size()));
  state.counters["flops"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["ceiling_share"] =
      Counter(flops / ceilings().flops_per_second, Counter::kIsIterationInvariantRate);
}
BENCHMARK(multiply)->Name("stage/multiply")->Arg(32)->Arg(64)->Arg(256);

void output_transform(benchmark::State& state) {
  Block block(state);
  for (auto _ : state) {
    block.stages.transform_output(block.m, block.tiles, block.bias.data(),
                                  {0, block.blocking.padded_intrinsic}, block.lines);
    benchmark::ClobberMemory();
  }
  report(state, block.tiles.count,
         (block.pixels() + kComponents * block.tiles.count) * block.blocking.padded_intrinsic);
}
BENCHMARK(output_transform)->Name("stage/output_transform")->Arg(32)->Arg(64)->Arg(256);

// state.range(1): whether neighbouring output channels come from unrelated places.
void epilogue(benchmark::State& state) {
  Block block(state);
  std::vector<std::int64_t> source;
  std::vector<std::int64_t> shift;
  std::vector<std::int64_t> order;
  for (std::int64_t index = 0; index < block.shape.ghost; ++index) {
    source.push_back(index);
    shift.insert(shift.end(), {1, -1});
  }
  for (std::int64_t index = 0; index < block.channels; ++index) {
    order.push_back(state.range(1) != 0 ? index * 29 % block.channels : index);
  }
  const ChannelPlan plan = make_channel_plan(block.shape.intrinsic, block.shape.ghost, source.data(),
                                             shift.data(), nullptr, nullptr, order.data());
  const std::vector<ChannelGroup> groups = make_channel_groups(plan, block.shape.weight_size());
  const Epilogue epilogue{.groups = groups.data(),
                          .out_channels = block.channels,
                          .intrinsic_channels = block.blocking.padded_intrinsic,
                          .chunk_pixels = block.blocking.chunk_pixels,
                          .affine = false,
                          .in_order = false,
                          .scale = 1.0F,
                          .activation = ActivationKind::relu,
                          .slopes = nullptr,
                          .slope_period = 0,
                          .stream = false};
  const float* rows[3];
  for (int row = 0; row < 3; ++row) {
    rows[row] = block.rows.data() + row * block.blocking.row_floats +
                std::ptrdiff_t{block.blocking.radius} * block.blocking.padded_intrinsic;
  }
  for (auto _ : state) {
    block.stages.finish_row(epilogue, EpilogueRow<float>{rows + 1, nullptr, block.output.data(),
                                                         block.channels, Block::kWidth, block.chunk.data()});
    benchmark::ClobberMemory();
  }
  report(state, Block::kWidth / 16.0,
         Block::kWidth * (block.channels + static_cast<double>(block.shape.intrinsic)));
}
BENCHMARK(epilogue)
    ->Name("stage/epilogue")
    ->ArgsProduct({{32, 64, 256}, {0, 1}})
    ->ArgNames({"", "scattered"});

void pack_weight(benchmark::State& state) {
  const std::int64_t channels = state.range(0);
  std::vector<float> weight(static_cast<std::size_t>(channels * channels * 9), 0.01F);
  std::vector<float> packed(packed_size({channels, channels}));
  for (auto _ : state) {
    pack(Weight{weight.data(), {channels, channels}, channels * channels * 9, channels * 9, 9, 3, 1},
         packed.data(), [](std::int64_t count, auto body) { body(0, count); });
    benchmark::ClobberMemory();
  }
}
BENCHMARK(pack_weight)->Name("stage/pack_weight")->Arg(32)->Arg(64)->Arg(256);

}  // namespace
}  // namespace ghostsr::bench
