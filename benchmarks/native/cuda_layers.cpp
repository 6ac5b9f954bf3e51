// The CUDA kernels alone, without torch: time and memory rate of the epilogue and its gradients.
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "ghost_sum.h"
#include "shift_concat.h"
#include "shift_concat_backward.h"

namespace ghostsr::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) {
    throw std::runtime_error(cudaGetErrorString(error));
  }
}

// Device memory that lives as long as the object.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(T)) {
    check(cudaMalloc(&data_, bytes_));
    check(cudaMemset(data_, 0, bytes_));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<int64_t>(values.size())) {
    check(cudaMemcpy(data_, values.data(), bytes_, cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return static_cast<T*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

class Stopwatch {
 public:
  Stopwatch() {
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  template <typename Work>
  double seconds(const Work& work) {
    check(cudaEventRecord(begin_));
    work();
    check(cudaEventRecord(end_));
    check(cudaEventSynchronize(end_));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds / 1e3;
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

// A layer of as many ghosts as intrinsic channels, of one 640x360 map.
template <typename T>
struct Layer {
  static constexpr int64_t kHeight = 360;
  static constexpr int64_t kWidth = 640;

  int64_t half;
  bool channels_last;
  DeviceArray<int64_t> source;
  DeviceArray<int64_t> shift;
  DeviceArray<int64_t> order;
  DeviceArray<T> intrinsic;
  DeviceArray<T> residual;
  DeviceArray<T> output;

  Layer(int64_t channels, bool last)
      : half(channels / 2),
        channels_last(last),
        source(numbers(half, 0, half - 1)),
        shift(numbers(2 * half, -1, 1)),
        order(permutation(channels)),
        intrinsic(half * kHeight * kWidth),
        residual(channels * kHeight * kWidth),
        output(channels * kHeight * kWidth) {}

  static std::vector<int64_t> numbers(int64_t count, int64_t least, int64_t most) {
    std::mt19937 random(1);
    std::uniform_int_distribution<int64_t> distribution(least, most);
    std::vector<int64_t> values(count);
    for (int64_t& value : values) {
      value = distribution(random);
    }
    return values;
  }
  static std::vector<int64_t> permutation(int64_t count) {
    std::vector<int64_t> values(count);
    for (int64_t index = 0; index < count; ++index) {
      values[index] = index % 2 == 0 ? index / 2 : count / 2 + index / 2;
    }
    return values;
  }

  Extent extent() const { return {1, kHeight, kWidth}; }
  Strides strides(int64_t channels) const {
    return channels_last ? Strides{channels * kHeight * kWidth, 1, kWidth * channels, channels}
                         : Strides{channels * kHeight * kWidth, kHeight * kWidth, kWidth, 1};
  }
  DeviceTables<T> tables() const {
    return {
        .intrinsic_channels = static_cast<int32_t>(half),
        .ghosts = static_cast<int32_t>(half),
        .source = {source.data(), 1, 0, true},
        .shift = {shift.data(), 2, 1, true},
        .order = {order.data(), 1, 0, true},
        .gain = {},
        .ghost_bias = {},
        .activation = {.kind = ActivationKind::relu, .slopes = {}, .slope = 0},
    };
  }
  OutputGradient<T> gradient(MaskSource mask_source = MaskSource::output) const {
    return {
        .data = residual.data(),
        .strides = strides(2 * half),
        .activation = mask_source == MaskSource::none ? ActivationKind::none : ActivationKind::relu,
        .mask_source = mask_source,
        .output = output.data(),
        .output_strides = strides(2 * half),
        .intrinsic = intrinsic.data(),
        .intrinsic_strides = strides(half),
        .residual_scale = 1,
    };
  }
};

template <typename Work>
void run(benchmark::State& state, size_t bytes, const Work& work) {
  Stopwatch stopwatch;
  for (int warmup = 0; warmup < 3; ++warmup) {
    work();
  }
  for (auto _ : state) {
    state.SetIterationTime(stopwatch.seconds(work));
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(bytes));
}

template <typename T>
void shift_concat(benchmark::State& state) {
  const Layer<T> layer(state.range(0), state.range(1) != 0);
  const bool residual = state.range(2) != 0;
  const ShiftConcatArguments<T> arguments{
      .extent = layer.extent(),
      .tables = layer.tables(),
      .intrinsic = layer.intrinsic.data(),
      .intrinsic_strides = layer.strides(layer.half),
      .convolution_bias = {},
      .residual = residual ? layer.residual.data() : nullptr,
      .residual_strides = layer.strides(2 * layer.half),
      .output = layer.output.data(),
      .output_strides = layer.strides(2 * layer.half),
      .residual_scale = 1,
  };
  const size_t bytes =
      layer.intrinsic.bytes() + layer.output.bytes() + (residual ? layer.residual.bytes() : 0);
  run(state, bytes, [&] { launch_shift_concat(arguments, shift_concat_path(arguments), nullptr); });
}

// The channel plan of a layer, made before the clock starts.
template <typename T>
struct Plan {
  DeviceArray<char> memory;
  ChannelPlanView<accumulator_t<T>> view;

  explicit Plan(const Layer<T>& layer)
      : memory(channel_plan_bytes<accumulator_t<T>>(layer.half, layer.half)),
        view(channel_plan_view<accumulator_t<T>>(memory.data(), layer.half, layer.half)) {
    launch_channel_plan(layer.tables(), view, nullptr);
  }
};

template <typename T>
void shift_concat_backward(benchmark::State& state) {
  const Layer<T> layer(state.range(0), state.range(1) != 0);
  const auto mask_source = static_cast<MaskSource>(state.range(2));
  const Plan<T> plan(layer);
  const DeviceArray<T> grad_intrinsic(layer.half * Layer<T>::kHeight * Layer<T>::kWidth);
  const ShiftConcatBackwardArguments<T> arguments{
      .extent = layer.extent(),
      .intrinsic_channels = static_cast<int32_t>(layer.half),
      .channels = static_cast<int32_t>(2 * layer.half),
      .readers = plan.view.readers,
      .reader_begin = plan.view.reader_begin,
      .shift_range = plan.view.shift_range,
      .gradient = layer.gradient(mask_source),
      .grad_intrinsic = grad_intrinsic.data(),
      .grad_intrinsic_strides = layer.strides(layer.half),
  };
  const size_t mask_bytes = mask_source == MaskSource::output      ? layer.output.bytes()
                            : mask_source == MaskSource::intrinsic ? layer.intrinsic.bytes()
                                                                   : 0;
  run(state, grad_intrinsic.bytes() + layer.residual.bytes() + mask_bytes,
      [&] { launch_shift_concat_backward(arguments, shift_concat_backward_path(arguments), nullptr); });
}

template <typename T>
void candidate_sums(benchmark::State& state) {
  const Layer<T> layer(state.range(0), state.range(1) != 0);
  const Plan<T> plan(layer);
  const int64_t parts = ghost_sum_parts(layer.extent(), layer.half, layer.gradient());
  const DeviceArray<accumulator_t<T>> partial(parts * layer.half * 9);
  const DeviceArray<double> sums(layer.half * 9);
  const GhostSumArguments<T> arguments{
      .extent = layer.extent(),
      .ghosts = static_cast<int32_t>(layer.half),
      .links = plan.view.ghosts,
      .gradient = layer.gradient(),
      .kind = GhostSum::candidates,
      .max_shift = 1,
      .partial = partial.data(),
  };
  run(state, layer.intrinsic.bytes() + layer.output.bytes(), [&] {
    launch_ghost_sum(arguments, nullptr);
    launch_reduce_parts(partial.data(), parts, static_cast<int32_t>(layer.half), 9, plan.view.ghosts,
                        sums.data(), nullptr);
  });
}

const std::vector<int64_t> kChannels = {64, 128, 256};
const std::vector<int64_t> kMaskSources = {static_cast<int64_t>(MaskSource::none),
                                           static_cast<int64_t>(MaskSource::output),
                                           static_cast<int64_t>(MaskSource::intrinsic)};

BENCHMARK(shift_concat<float>)->ArgsProduct({kChannels, {0, 1}, {0, 1}})->UseManualTime();
BENCHMARK(shift_concat<Float16>)->ArgsProduct({kChannels, {0, 1}, {0, 1}})->UseManualTime();
BENCHMARK(shift_concat_backward<float>)->ArgsProduct({kChannels, {0, 1}, kMaskSources})->UseManualTime();
BENCHMARK(shift_concat_backward<Float16>)->ArgsProduct({kChannels, {0, 1}, kMaskSources})->UseManualTime();
BENCHMARK(candidate_sums<float>)->ArgsProduct({kChannels, {0, 1}})->UseManualTime();
BENCHMARK(candidate_sums<Float16>)->ArgsProduct({kChannels, {0, 1}})->UseManualTime();

}  // namespace
}  // namespace ghostsr::cuda

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("ghostsr_bench_cuda: skipped, no GPU");
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
