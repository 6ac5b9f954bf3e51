// The one place where the operators' arguments are checked. Each error names the argument, what was found and
// what is allowed; torch shows it as a RuntimeError.
#pragma once

#include "core/activation.h"
#include "core/geometry.h"
#include "ops/arguments.h"

namespace ghostsr::ops {

// Whether the weight's filters can be cut into this many groups.
void check_groups(int64_t groups, const Tensor& weight);

// The filters, for a map of the input's dtype and device.
void check_filters(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                   const ConvolutionGeometry& geometry);

// The input's size, for checked filters.
void check_input_size(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry);

// Both.
void check_convolution(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const ConvolutionGeometry& geometry);

void check_convolution_backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                const ConvolutionGeometry& geometry, const std::vector<bool>& output_mask);

// Shapes, dtypes and devices of the tables, for an intrinsic map (or anything of its dtype and device) with
// this many channels. The entries themselves are checked where they are read, by read_tables.
void check_tables(const GhostTables& tables, int64_t intrinsic_channels, const Tensor& like);

// The activation of an output of this many channels, for a map (or anything of its dtype and device).
ActivationKind check_activation(const ActivationArguments& activation, int64_t channels, const Tensor& like);

// `found` must have the shape, dtype and device of the layer's output.
void check_like_output(const char* argument, const Tensor& found, const IntList& size, const Tensor& like);

// The factor of a pixel shuffle of this many channels.
void check_shuffle(int64_t shuffle, int64_t channels);

// A map [N, C, H, W] of a supported dtype.
void check_map(const char* argument, const Tensor& found);

// Returns max_shift.
int64_t check_logits(const Tensor& logits, const OptionalTensor& noise, double tau, int64_t ghosts,
                     const Tensor& like);

// Height and width of the convolution's output.
IntList convolved_size(const Tensor& input, const Tensor& weight, const ConvolutionGeometry& geometry);

[[noreturn]] void fail(const std::string& message);

std::string size_text(const Tensor& tensor);

}  // namespace ghostsr::ops
