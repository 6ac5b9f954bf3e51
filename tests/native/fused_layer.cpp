#include "fused_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include "activations.h"
#include "core/cpu_features.h"
#include "core/fused/stages.h"
#include "kernel_levels.h"

namespace ghostsr::fused {

namespace {

std::vector<float> random_floats(std::int64_t count, float spread, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> values(static_cast<std::size_t>(count));
  std::generate(values.begin(), values.end(), [&] { return normal(random); });
  return values;
}

std::vector<BFloat16> narrowed(const std::vector<float>& values) {
  std::vector<BFloat16> result;
  std::transform(values.begin(), values.end(), std::back_inserter(result),
                 [](float value) { return BFloat16(value); });
  return result;
}

std::vector<float> widened(const std::vector<BFloat16>& values) {
  std::vector<float> result;
  std::transform(values.begin(), values.end(), std::back_inserter(result),
                 [](BFloat16 value) { return static_cast<float>(value); });
  return result;
}

std::int64_t out_floats(const Shape& shape) {
  return shape.batch * shape.out_height() * shape.out_width() * shape.out_channels();
}

}  // namespace

Layer::Layer(const Shape& shape, const LayerOptions& options)
    : shape_(shape), options_(options), stride_x_(shape.in_channels + options.pixel_gap), channels_() {
  stride_y_ = shape.width * stride_x_ + options.row_gap;
  stride_n_ = shape.height * stride_y_ + options.picture_gap;
  std::mt19937 random(options.seed);

  // The gaps are NaN: nothing may be read from them.
  const std::int64_t input_size =
      shape.batch == 0 ? 0
                       : input_index(shape.batch - 1, shape.height - 1, shape.width - 1, shape.in_channels);
  input_.assign(static_cast<std::size_t>(input_size), std::numeric_limits<float>::quiet_NaN());
  std::normal_distribution<float> normal;
  for (std::int64_t n = 0; n < shape.batch; ++n) {
    for (std::int64_t y = 0; y < shape.height; ++y) {
      for (std::int64_t x = 0; x < shape.width; ++x) {
        for (std::int64_t channel = 0; channel < shape.in_channels; ++channel) {
          input(n, y, x, channel) = normal(random);
        }
      }
    }
  }

  const WeightSize size = shape.weight_size();
  const std::int64_t taps = size.kernel * size.kernel;
  const float spread = 1.0F / std::sqrt(static_cast<float>(taps * size.in));
  weight_ = random_floats(shape.intrinsic * size.in * taps, spread, random);
  packed_.resize(packed_size(size));
  pack(Weight{weight_.data(), size, size.out * size.in * taps, size.in * taps, taps, size.kernel, 1},
       packed_.data(), serially);
  if (options.with_bias) {
    bias_ = random_floats(shape.intrinsic, 0.5F, random);
  }
  if (options.with_residual) {
    residual_ = random_floats(out_floats(shape), 1.0F, random);
  }

  if (options.bfloat16) {
    input_ = widened(narrowed(input_));
    weight_ = widened(narrowed(weight_));
    residual_ = widened(narrowed(residual_));
    const std::vector<BFloat16> weight = narrowed(weight_);
    packed_bfloat16_.resize(packed_size<BFloat16>(size));
    pack(WeightOf<BFloat16>{weight.data(), size, size.out * size.in * taps, size.in * taps, taps, size.kernel,
                            1},
         packed_bfloat16_.data());
  }

  slopes_ = test_slopes(shape.out_channels());

  std::uniform_int_distribution<std::int64_t> any_source(0, shape.intrinsic - 1);
  std::uniform_int_distribution<std::int64_t> any_shift(-options.max_shift, options.max_shift);
  std::uniform_real_distribution<double> any_scalar(-2.0, 2.0);
  std::vector<std::int64_t> source;
  std::vector<std::int64_t> shift;
  std::vector<double> gain;
  std::vector<double> ghost_bias;
  for (std::int64_t ghost = 0; ghost < shape.ghost; ++ghost) {
    source.push_back(options.sources_in_order ? ghost % shape.intrinsic : any_source(random));
    shift.push_back(any_shift(random));
    shift.push_back(any_shift(random));
    gain.push_back(any_scalar(random));
    ghost_bias.push_back(any_scalar(random));
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(shape.out_channels()));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  channels_ = make_channel_plan(
      shape.intrinsic, shape.ghost, source.data(), shift.data(), options.with_gain ? gain.data() : nullptr,
      options.with_gain ? ghost_bias.data() : nullptr, options.with_order ? order.data() : nullptr);
}

std::int64_t Layer::input_index(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t channel) const {
  return n * stride_n_ + y * stride_y_ + x * stride_x_ + channel;
}

float& Layer::input(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t channel) {
  return input_[static_cast<std::size_t>(input_index(n, y, x, channel))];
}

template <class T>
ArgumentsOf<T> Layer::common_arguments() const {
  ArgumentsOf<T> arguments;
  arguments.shape = shape_;
  arguments.input_stride_n = stride_n_;
  arguments.input_stride_y = stride_y_;
  arguments.input_stride_x = stride_x_;
  arguments.bias = options_.with_bias ? bias_.data() : nullptr;
  arguments.channels = &channels_;
  arguments.residual_scale = options_.residual_scale;
  arguments.output_stride_x = shape_.out_channels() / (shape_.shuffle * shape_.shuffle);
  arguments.output_stride_y = shape_.shuffle * shape_.out_width() * arguments.output_stride_x;
  arguments.output_stride_n = shape_.shuffle * shape_.out_height() * arguments.output_stride_y;
  arguments.activation = {options_.activation,
                          options_.activation == ActivationKind::leaky ? slopes_.data() : nullptr};
  return arguments;
}

Arguments Layer::arguments() const {
  auto arguments = common_arguments<float>();
  arguments.input = input_.data();
  arguments.packed_weight = packed_.data();
  arguments.residual = options_.with_residual ? residual_.data() : nullptr;
  return arguments;
}

std::vector<float> Layer::computed_in_bfloat16(int workers, ParallelFor parallel,
                                               const Stages* stages) const {
  const std::vector<BFloat16> input = narrowed(input_);
  const std::vector<BFloat16> residual = narrowed(residual_);
  std::vector<BFloat16> output(static_cast<std::size_t>(out_floats(shape_)),
                               BFloat16(std::numeric_limits<float>::quiet_NaN()));
  auto arguments = common_arguments<BFloat16>();
  arguments.input = input.data();
  arguments.packed_weight = packed_bfloat16_.data();
  arguments.residual = options_.with_residual ? residual.data() : nullptr;
  arguments.output = output.data();
  arguments.stages = stages;
  Workspace workspace;
  run(arguments, workers, workspace, parallel);
  return widened(output);
}

std::vector<float> Layer::computed(int workers, ParallelFor parallel, const Stages* stages) const {
  Arguments arguments = this->arguments();
  arguments.stages = stages;
  // Whatever the workspace and the output hold before must not matter.
  std::vector<float> output(static_cast<std::size_t>(out_floats(shape_)),
                            std::numeric_limits<float>::quiet_NaN());
  arguments.output = output.data();
  Workspace workspace;
  run(arguments, workers, workspace, parallel);
  return output;
}

std::vector<float> Layer::computed(const Stages* stages) const { return computed(1, serially, stages); }

std::vector<double> Layer::convolved() const {
  const WeightSize size = shape_.weight_size();
  const std::int64_t taps = size.kernel * size.kernel;
  std::vector<double> map;
  for (std::int64_t n = 0; n < shape_.batch; ++n) {
    for (std::int64_t y = 0; y < shape_.out_height(); ++y) {
      for (std::int64_t x = 0; x < shape_.out_width(); ++x) {
        for (std::int64_t out = 0; out < shape_.intrinsic; ++out) {
          double sum = options_.with_bias ? static_cast<double>(bias_[static_cast<std::size_t>(out)]) : 0.0;
          for (std::int64_t ky = 0; ky < size.kernel; ++ky) {
            for (std::int64_t kx = 0; kx < size.kernel; ++kx) {
              const std::int64_t row = y + ky - shape_.padding_y;
              const std::int64_t column = x + kx - shape_.padding_x;
              if (row < 0 || row >= shape_.height || column < 0 || column >= shape_.width) {
                continue;
              }
              const float* pixel = input_.data() + input_index(n, row, column, out / size.out * size.in);
              const float* kernel = weight_.data() + out * size.in * taps + ky * size.kernel + kx;
              for (std::int64_t in = 0; in < size.in; ++in) {
                sum += static_cast<double>(pixel[in]) * static_cast<double>(kernel[in * taps]);
              }
            }
          }
          map.push_back(sum);
        }
      }
    }
  }
  return map;
}

std::vector<double> Layer::expected() const {
  const std::vector<double> intrinsic = convolved();
  const std::int64_t height = shape_.out_height();
  const std::int64_t width = shape_.out_width();
  std::vector<double> output;
  for (std::int64_t n = 0; n < shape_.batch; ++n) {
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        for (const ChannelOrigin& origin : channels_.origins) {
          const std::int64_t row = y + origin.dy;
          const std::int64_t column = x + origin.dx;
          double value = 0.0;
          if (row >= 0 && row < height && column >= 0 && column < width) {
            value = intrinsic[static_cast<std::size_t>(
                ((n * height + row) * width + column) * shape_.intrinsic + origin.source)];
          }
          value = static_cast<double>(options_.residual_scale) * (origin.gain * value + origin.bias);
          if (options_.with_residual) {
            value += static_cast<double>(residual_[output.size()]);
          }
          const std::size_t channel = output.size() % slopes_.size();
          output.push_back(activated(options_.activation, slopes_[channel], value));
        }
      }
    }
  }
  return shuffled(output);
}

std::vector<double> Layer::shuffled(const std::vector<double>& map) const {
  const std::int64_t factor = shape_.shuffle;
  const std::int64_t height = shape_.out_height() * factor;
  const std::int64_t width = shape_.out_width() * factor;
  const std::int64_t channels = shape_.out_channels() / (factor * factor);
  std::vector<double> output;
  for (std::int64_t n = 0; n < shape_.batch; ++n) {
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        for (std::int64_t channel = 0; channel < channels; ++channel) {
          const std::int64_t pixel = (n * shape_.out_height() + y / factor) * shape_.out_width() + x / factor;
          const std::int64_t from = (channel * factor + y % factor) * factor + x % factor;
          output.push_back(map[static_cast<std::size_t>(pixel * shape_.out_channels() + from)]);
        }
      }
    }
  }
  return output;
}

float* Workspace::operator()(std::size_t floats) {
  memory_.assign(floats, std::numeric_limits<float>::quiet_NaN());
  return memory_.data();
}

std::size_t Layer::workspace_floats(int workers) const {
  Arguments arguments = this->arguments();
  std::vector<float> output(static_cast<std::size_t>(out_floats(shape_)));
  arguments.output = output.data();
  Workspace workspace;
  run(arguments, workers, workspace, serially);
  return workspace.floats();
}

double relative_error(const std::vector<float>& computed, const std::vector<double>& expected) {
  if (computed.size() != expected.size()) {
    return std::numeric_limits<double>::infinity();
  }
  double difference = 0.0;
  double power = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(computed[i]) - expected[i], 2);
    power += std::pow(expected[i], 2);
  }
  if (power == 0.0) {
    return difference == 0.0 ? 0.0 : std::numeric_limits<double>::infinity();
  }
  return std::sqrt(difference / power);
}

std::vector<Level> levels() {
  std::vector<Level> levels;
  for (const KernelLevel& level : kernel_levels()) {
    levels.push_back({level.name, level.kernels->fused});
  }
  return levels;
}

void expect_right_at_every_level(const Layer& layer) {
  // The rounding of F(4x4, 3x3) in float32, relative to the output's root mean square.
  constexpr double kTolerance = 2e-6;
  const std::vector<double> expected = layer.expected();
  for (const Level& level : levels()) {
    EXPECT_LE(relative_error(layer.computed(level.stages), expected), kTolerance)
        << "at level " << level.name;
  }
}

void serially(std::int64_t count, FunctionRef<void(std::int64_t, std::int64_t)> body) { body(0, count); }

void in_threads(std::int64_t count, FunctionRef<void(std::int64_t, std::int64_t)> body) {
  std::vector<std::thread> threads;
  for (std::int64_t index = 0; index < count; ++index) {
    threads.emplace_back([&body, index] { body(index, index + 1); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace ghostsr::fused
