// Reading the tables of a ghost layer on the CPU.
#pragma once

#include <vector>

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

}  // namespace ghostsr::ops
