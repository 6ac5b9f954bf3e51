// Reading the tables of a ghost layer on the CPU.
#pragma once

#include <vector>

#include "core/activation.h"
#include "core/channel_plan.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

std::vector<int64_t> read_integers(const Tensor& tensor);
std::vector<double> read_numbers(const Tensor& tensor);

// Checks every entry and resolves the tables per channel. `shift` holds (dy, dx) pairs.
ChannelPlan read_tables(const GhostTables& tables, const std::vector<int64_t>& shift,
                        int64_t intrinsic_channels);

// The same with the shifts of the tables.
ChannelPlan read_tables(const GhostTables& tables, int64_t intrinsic_channels);

// The factors of negative values for each of the output channels; none unless the checked activation is a
// leaky one.
std::vector<double> read_slopes(const ActivationArguments& activation, ActivationKind kind, int64_t channels);

}  // namespace ghostsr::ops
