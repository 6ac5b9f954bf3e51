#include "ops/shift_selection.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/ghost_sums.h"
#include "ops/layout.h"
#include "ops/tables.h"

namespace ghostsr::ops {

std::vector<int64_t> selected_shifts(const Tensor& logits, const OptionalTensor& noise, double tau,
                                     int64_t ghosts, int64_t max_shift) {
  const std::vector<double> values = read_numbers(logits);
  const std::vector<double> noises = noise.has_value() ? read_numbers(*noise) : std::vector<double>();
  const int64_t rows = logits.size(0);
  const int64_t window = 2 * max_shift + 1;
  std::vector<int64_t> selected(rows);
  select_candidate(values.data(), noise.has_value() ? noises.data() : nullptr, tau, rows, window * window,
                   selected.data());
  std::vector<int64_t> shift;
  shift.reserve(2 * ghosts);
  for (int64_t ghost = 0; ghost < ghosts; ++ghost) {
    const int64_t candidate = selected[rows == ghosts ? ghost : 0];
    shift.push_back(candidate / window - max_shift);
    shift.push_back(candidate % window - max_shift);
  }
  return shift;
}

namespace {

Tensor select_shift_cpu(const Tensor& logits, const OptionalTensor& noise, double tau, int64_t ghosts) {
  const int64_t max_shift = check_logits(logits, noise, tau, ghosts, logits);
  const std::vector<int64_t> shift = selected_shifts(logits, noise, tau, ghosts, max_shift);
  Tensor result = torch::stable::empty(IntList{ghosts, 2}, ScalarType::Long, std::nullopt, logits.device());
  std::copy(shift.begin(), shift.end(), mutable_data_of<int64_t>(result));
  return result;
}

std::tuple<Tensor, Tensor> shift_selection_backward_cpu(
    const Tensor& grad_output, const Tensor& intrinsic, const Tensor& source, const Tensor& logits,
    const OptionalTensor& noise, double tau, const OptionalTensor& gain, const OptionalTensor& ghost_bias,
    const OptionalTensor& order, const OptionalTensor& output, const Name& activation, double negative_slope,
    double residual_scale) {
  const GhostTables tables{source, nullptr, gain, ghost_bias, order};
  const OptionalTensor intrinsic_map = intrinsic;
  const GhostGradient gradient =
      check_ghost_gradient(grad_output, tables, intrinsic_map, output,
                           {activation, negative_slope, std::nullopt}, residual_scale, true);
  const int64_t ghosts = source.size(0);
  const int64_t max_shift = check_logits(logits, noise, tau, ghosts, grad_output);
  const ChannelPlan plan = read_tables(tables, selected_shifts(logits, noise, tau, ghosts, max_shift),
                                       gradient.intrinsic_channels);
  std::vector<double> scores = ghost_sums(LaidOutGradient(gradient), plan, GhostSum::candidates, max_shift);
  const int64_t candidates = logits.size(1);
  for (int64_t ghost = 0; ghost < ghosts; ++ghost) {
    for (int64_t candidate = 0; candidate < candidates; ++candidate) {
      scores[ghost * candidates + candidate] *= plan.origins[plan.ghost_outputs[ghost]].gain;
    }
  }
  const int64_t rows = logits.size(0);
  std::vector<double> totals(rows * candidates, 0.0);
  for (int64_t ghost = 0; ghost < ghosts; ++ghost) {
    for (int64_t candidate = 0; candidate < candidates; ++candidate) {
      totals[(rows == ghosts ? ghost : 0) * candidates + candidate] += scores[ghost * candidates + candidate];
    }
  }
  const std::vector<double> values = read_numbers(logits);
  const std::vector<double> noises = noise.has_value() ? read_numbers(*noise) : std::vector<double>();
  std::vector<double> grad_logits(rows * candidates);
  for (int64_t row = 0; row < rows; ++row) {
    selection_gradient(values.data() + row * candidates,
                       noise.has_value() ? noises.data() + row * candidates : nullptr, tau,
                       totals.data() + row * candidates, candidates, grad_logits.data() + row * candidates);
  }
  return {to_vector(scores, {ghosts, candidates}, logits),
          to_vector(grad_logits, {rows, candidates}, logits)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) {
  library.impl("select_shift", GHOSTSR_BOX(&select_shift_cpu));
  library.impl("shift_selection_backward", GHOSTSR_BOX(&shift_selection_backward_cpu));
}

}  // namespace ghostsr::ops
