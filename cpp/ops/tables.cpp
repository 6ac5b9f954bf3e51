#include "ops/tables.h"

#include <type_traits>

#include "core/half.h"
#include "ops/checks.h"

namespace ghostsr::ops {
namespace {

template <typename To, typename From>
To widen(From value) {
  if constexpr (std::is_arithmetic_v<From>) {
    return static_cast<To>(value);
  } else {
    return static_cast<To>(static_cast<float>(value));
  }
}

template <typename To, typename From>
void copy_strided(const Tensor& tensor, std::vector<To>& values) {
  const auto* data = static_cast<const From*>(tensor.const_data_ptr());
  const int64_t rows = tensor.dim() > 1 ? tensor.size(0) : 1;
  const int64_t columns = tensor.dim() > 1 ? tensor.size(1) : tensor.size(0);
  const int64_t row_step = tensor.dim() > 1 ? tensor.stride(0) : 0;
  const int64_t column_step = tensor.stride(tensor.dim() - 1);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      values.push_back(widen<To>(data[row * row_step + column * column_step]));
    }
  }
}

void check_entry(const char* argument, int64_t index, int64_t found, int64_t least, int64_t most) {
  if (found < least || found > most) {
    fail(std::string(argument) + ": found " + std::to_string(found) + " at " + std::to_string(index) + "; " +
         std::to_string(least) + ".." + std::to_string(most) + " is allowed");
  }
}

}  // namespace

std::vector<int64_t> read_integers(const Tensor& tensor) {
  std::vector<int64_t> values;
  values.reserve(tensor.numel());
  tensor.scalar_type() == ScalarType::Int ? copy_strided<int64_t, int32_t>(tensor, values)
                                          : copy_strided<int64_t, int64_t>(tensor, values);
  return values;
}

std::vector<double> read_numbers(const Tensor& tensor) {
  std::vector<double> values;
  values.reserve(tensor.numel());
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      copy_strided<double, double>(tensor, values);
      break;
    case ScalarType::Half:
      copy_strided<double, Float16>(tensor, values);
      break;
    case ScalarType::BFloat16:
      copy_strided<double, BFloat16>(tensor, values);
      break;
    default:
      copy_strided<double, float>(tensor, values);
      break;
  }
  return values;
}

ChannelPlan read_tables(const GhostTables& tables, const std::vector<int64_t>& shift,
                        int64_t intrinsic_channels) {
  const std::vector<int64_t> source = read_integers(tables.source);
  const auto ghosts = static_cast<int64_t>(source.size());
  for (int64_t ghost = 0; ghost < ghosts; ++ghost) {
    check_entry("source", ghost, source[ghost], 0, intrinsic_channels - 1);
    check_entry("shift", ghost, shift[2 * ghost], -kMaxShift, kMaxShift);
    check_entry("shift", ghost, shift[2 * ghost + 1], -kMaxShift, kMaxShift);
  }
  std::vector<int64_t> order;
  if (tables.order.has_value()) {
    order = read_integers(*tables.order);
    std::vector<char> seen(order.size(), 0);
    for (size_t position = 0; position < order.size(); ++position) {
      const int64_t channel = order[position];
      check_entry("order", static_cast<int64_t>(position), channel, 0,
                  static_cast<int64_t>(order.size()) - 1);
      if (seen[channel] != 0) {
        fail("order: found " + std::to_string(channel) + " twice; a permutation is needed");
      }
      seen[channel] = 1;
    }
  }
  std::vector<double> gain;
  std::vector<double> ghost_bias;
  if (tables.gain.has_value()) {
    gain = read_numbers(*tables.gain);
  }
  if (tables.ghost_bias.has_value()) {
    ghost_bias = read_numbers(*tables.ghost_bias);
  }
  return make_channel_plan(intrinsic_channels, ghosts, source.data(), shift.data(),
                           tables.gain.has_value() ? gain.data() : nullptr,
                           tables.ghost_bias.has_value() ? ghost_bias.data() : nullptr,
                           tables.order.has_value() ? order.data() : nullptr);
}

ChannelPlan read_tables(const GhostTables& tables, int64_t intrinsic_channels) {
  return read_tables(tables, read_integers(*tables.shift), intrinsic_channels);
}

std::vector<double> read_slopes(const ActivationArguments& activation, ActivationKind kind,
                                int64_t channels) {
  if (kind != ActivationKind::leaky) {
    return {};
  }
  std::vector<double> slopes{activation.negative_slope};
  if (activation.prelu_weight.has_value()) {
    slopes = read_numbers(*activation.prelu_weight);
  }
  if (slopes.size() == 1) {
    slopes.assign(channels, slopes[0]);
  }
  return slopes;
}

}  // namespace ghostsr::ops
