#include "layer_case.h"

#include <algorithm>
#include <numeric>

#include "../activations.h"

namespace ghostsr::cuda_test {
namespace {

int64_t draw(std::mt19937_64& random, int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random);
}

bool chance(std::mt19937_64& random, double probability) {
  return std::bernoulli_distribution(probability)(random);
}

// Numbers of few bits: exact in bfloat16, and so are their products in float.
std::vector<double> draw_numbers(std::mt19937_64& random, int64_t count, bool dyadic) {
  std::vector<double> values(count);
  for (double& value : values) {
    value =
        dyadic ? static_cast<double>(draw(random, -32, 32)) / 8
               : static_cast<double>(static_cast<float>(BFloat16(std::normal_distribution<float>()(random))));
  }
  return values;
}

// Drawn so that every second width is even, and some maps are one pixel high or wide.
int64_t draw_side(std::mt19937_64& random, int64_t most) {
  switch (draw(random, 0, 5)) {
    case 0:
      return draw(random, 1, std::min<int64_t>(most, 4));
    case 1:
      return std::max<int64_t>(1, draw(random, 1, most) / 8 * 8);
    default:
      return draw(random, 1, most);
  }
}

}  // namespace

LayerCase random_case(std::mt19937_64& random, const CaseLimits& limits) {
  LayerCase layer;
  layer.batch = draw(random, 1, 2);
  layer.intrinsic_channels = draw(random, 1, limits.most_channels / 2);
  layer.ghosts = draw(random, 0, limits.most_channels / 2);
  if (chance(random, 0.4)) {
    layer.intrinsic_channels = (layer.intrinsic_channels + 7) / 8 * 8;
    layer.ghosts = (layer.ghosts + 7) / 8 * 8;
  }
  layer.width = draw_side(random, 72);
  layer.height = std::min(draw_side(random, 40), std::max<int64_t>(1, limits.most_pixels / layer.width));
  layer.dyadic = chance(random, 0.6);
  const int64_t radius = draw(random, 0, limits.most_shift);
  for (int64_t ghost = 0; ghost < layer.ghosts; ++ghost) {
    layer.source.push_back(draw(random, 0, layer.intrinsic_channels - 1));
    layer.shift.push_back(draw(random, -radius, radius));
    layer.shift.push_back(draw(random, -radius, radius));
  }
  if (chance(random, 0.5)) {
    std::vector<int64_t> order(layer.channels());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    layer.order = order;
  }
  if (chance(random, 0.4)) {
    layer.gain = draw_numbers(random, layer.ghosts, true);
  }
  if (chance(random, 0.3)) {
    layer.ghost_bias = draw_numbers(random, layer.ghosts, true);
  }
  layer.residual_scale = chance(random, 0.3) ? 0.125 : 1;
  layer.activation = kActivations[draw(random, 0, 2)];
  layer.slopes = test_slopes(layer.channels());
  layer.residual = chance(random, 0.4);
  layer.intrinsic = draw_numbers(random, layer.intrinsic_size().elements(), layer.dyadic);
  layer.residual_map = draw_numbers(random, layer.output_size().elements(), layer.dyadic);
  layer.grad_output = draw_numbers(random, layer.output_size().elements(), layer.dyadic);
  layer.layout = static_cast<Layout>(draw(random, 0, 4));
  layer.output_layout = chance(random, 0.7) ? layer.layout : static_cast<Layout>(draw(random, 0, 4));
  layer.misalignment = chance(random, 0.4) ? draw(random, 1, 7) : 0;
  return layer;
}

ChannelPlan LayerCase::plan() const {
  return make_channel_plan(intrinsic_channels, ghosts, source.data(), shift.data(),
                           gain ? gain->data() : nullptr, ghost_bias ? ghost_bias->data() : nullptr,
                           order ? order->data() : nullptr);
}

std::vector<double> LayerCase::expected_output() const {
  std::vector<double> output;
  output.reserve(output_size().elements());
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t channel = 0; channel < channels(); ++channel) {
      const int64_t concatenated = order ? (*order)[channel] : channel;
      const int64_t ghost = concatenated - intrinsic_channels;
      const int64_t from = ghost < 0 ? concatenated : source[ghost];
      const int64_t dy = ghost < 0 ? 0 : shift[2 * ghost];
      const int64_t dx = ghost < 0 ? 0 : shift[2 * ghost + 1];
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
          const bool inside = y + dy >= 0 && y + dy < height && x + dx >= 0 && x + dx < width;
          double value = 0;
          if (inside) {
            value = intrinsic[((n * intrinsic_channels + from) * height + y + dy) * width + x + dx] +
                    (convolution_bias.empty() ? 0 : convolution_bias[from]);
          }
          if (ghost >= 0) {
            value = (gain ? (*gain)[ghost] : 1) * value + (ghost_bias ? (*ghost_bias)[ghost] : 0);
          }
          value *= residual_scale;
          if (residual) {
            value += residual_map[output.size()];
          }
          output.push_back(activated(activation, slope(channel), value));
        }
      }
    }
  }
  return output;
}

template <typename T>
LentTables<T>::LentTables(const LayerCase& layer, bool wide) {
  tables_.intrinsic_channels = static_cast<int32_t>(layer.intrinsic_channels);
  tables_.ghosts = static_cast<int32_t>(layer.ghosts);
  tables_.source = integers(layer.source, 1, wide);
  tables_.shift = integers(layer.shift, 2, wide);
  if (layer.order) {
    tables_.order = integers(*layer.order, 1, wide);
  }
  if (layer.gain) {
    tables_.gain = numbers(*layer.gain);
  }
  if (layer.ghost_bias) {
    tables_.ghost_bias = numbers(*layer.ghost_bias);
  }
  tables_.activation.kind = layer.activation;
  if (layer.activation == ActivationKind::leaky) {
    tables_.activation.slopes = numbers(layer.slopes);
  }
  if (!layer.convolution_bias.empty()) {
    convolution_bias_ = numbers(layer.convolution_bias);
  }
}

template <typename T>
cuda::IntegerTable LentTables<T>::integers(const std::vector<int64_t>& values, int64_t columns, bool wide) {
  if (wide) {
    wide_.push_back(values);
    loans_.push_back(
        std::make_unique<host_cuda::Loan>(wide_.back().data(), values.size() * sizeof(int64_t), false));
    return {wide_.back().data(), columns, 1, true};
  }
  std::vector<int32_t> spaced(2 * values.size());
  for (size_t index = 0; index < values.size(); ++index) {
    spaced[2 * index] = static_cast<int32_t>(values[index]);
  }
  narrow_.push_back(std::move(spaced));
  loans_.push_back(std::make_unique<host_cuda::Loan>(narrow_.back().data(),
                                                     narrow_.back().size() * sizeof(int32_t), false));
  return {narrow_.back().data(), 2 * columns, 2, false};
}

template <typename T>
cuda::NumberTable<T> LentTables<T>::numbers(const std::vector<double>& values) {
  std::vector<T> stored;
  std::transform(values.begin(), values.end(), std::back_inserter(stored), from_double<T>);
  numbers_.push_back(std::move(stored));
  loans_.push_back(
      std::make_unique<host_cuda::Loan>(numbers_.back().data(), numbers_.back().size() * sizeof(T), false));
  // A table without entries still exists.
  static const T nothing{};
  return {numbers_.back().empty() ? &nothing : numbers_.back().data(), 1};
}

template class LentTables<float>;
template class LentTables<double>;
template class LentTables<Float16>;
template class LentTables<BFloat16>;

}  // namespace ghostsr::cuda_test
