// Ghost layers drawn at random, with everything that their kernels read.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "core/channel_plan.h"
#include "core/shift_concat.h"
#include "device_tables.h"
#include "strided_map.h"

namespace ghostsr::cuda_test {

// A layer in double precision. All numbers are exact in every storage type, and where `dyadic` is set so are
// the sums that kernels make of them, whatever their order.
struct LayerCase {
  int64_t batch = 1;
  int64_t intrinsic_channels = 1;
  int64_t ghosts = 0;
  int64_t height = 1;
  int64_t width = 1;
  std::vector<int64_t> source;
  std::vector<int64_t> shift;  // pairs (dy, dx)
  std::optional<std::vector<int64_t>> order;
  std::optional<std::vector<double>> gain;
  std::optional<std::vector<double>> ghost_bias;
  std::vector<double>
      convolution_bias;  // [intrinsic_channels], still to be added to the intrinsic map; or empty
  double residual_scale = 1;
  ActivationKind activation = ActivationKind::none;
  std::vector<double> slopes;  // [channels()] of `leaky`
  bool residual = false;
  bool dyadic = true;
  std::vector<double> intrinsic;  // values in the order of StridedMap::each
  std::vector<double> residual_map;
  std::vector<double> grad_output;
  Layout layout = Layout::contiguous;  // of the maps read
  Layout output_layout = Layout::contiguous;
  int64_t misalignment = 0;

  int64_t channels() const { return intrinsic_channels + ghosts; }
  Size intrinsic_size() const { return {batch, intrinsic_channels, height, width}; }
  Size output_size() const { return {batch, channels(), height, width}; }
  ChannelPlan plan() const;
  Activation cpu_activation() const {
    return {activation, activation == ActivationKind::leaky ? slopes.data() : nullptr};
  }
  double slope(int64_t channel) const {
    return activation == ActivationKind::leaky ? slopes[static_cast<size_t>(channel)] : 0;
  }

  // Whether the epilogue only moves values, so that no rounding takes place.
  bool only_moves() const {
    return convolution_bias.empty() && !gain && !ghost_bias && residual_scale == 1 && !residual;
  }

  // The output in double precision, in the order of StridedMap::each: the definition, written out.
  std::vector<double> expected_output() const;
};

struct CaseLimits {
  int64_t most_channels = 12;
  int64_t most_pixels = 900;
  int64_t most_shift = 3;
};

LayerCase random_case(std::mt19937_64& random, const CaseLimits& limits);

// The tables of a case as a kernel reads them. Lent while it lives.
template <typename T>
class LentTables {
 public:
  // Wide tables are int64 and dense, narrow ones int32 with a gap after each entry.
  LentTables(const LayerCase& layer, bool wide);
  const cuda::DeviceTables<T>& tables() const { return tables_; }
  const cuda::NumberTable<T>& convolution_bias() const { return convolution_bias_; }

 private:
  cuda::IntegerTable integers(const std::vector<int64_t>& values, int64_t columns, bool wide);
  cuda::NumberTable<T> numbers(const std::vector<double>& values);

  std::vector<std::vector<int64_t>> wide_;
  std::vector<std::vector<int32_t>> narrow_;
  std::vector<std::vector<T>> numbers_;
  std::vector<std::unique_ptr<host_cuda::Loan>> loans_;
  cuda::DeviceTables<T> tables_;
  cuda::NumberTable<T> convolution_bias_;
};

}  // namespace ghostsr::cuda_test
