#include <torch/csrc/stable/ops.h>

#include "core/fused/channel_groups.h"
#include "ops/boxed.h"
#include "ops/checks.h"
#include "ops/constants.h"
#include "ops/convolution.h"
#include "ops/convolution_path.h"
#include "ops/fused_layer.h"
#include "ops/layer_cache.h"
#include "ops/layout.h"
#include "ops/packed_weight.h"
#include "ops/shift_concat.h"
#include "ops/shift_selection.h"
#include "ops/tables.h"

namespace ghostsr::ops {
namespace {

struct Layer {
  const Tensor& weight;
  const OptionalTensor& bias;
  const ConvolutionGeometry& geometry;
  const GhostTables& tables;
  const ActivationArguments& activation;
  int64_t shuffle = 1;
};

struct Epilogue {
  const OptionalTensor& residual;
  double residual_scale;
};

// Whether a weight is expected to be the same in the next call.
enum class WeightUse { repeated, learning };

// The packed weight of a layer, where its own path is the one to take; else null. The choice depends on sizes
// alone, never on earlier calls, so that the same input gives the same bits.
std::shared_ptr<const PackedWeight> packed_weight_of(const Tensor& weight, const fused::Shape& shape,
                                                     ConvolutionPath own, LayerCache* cache, WeightUse use) {
  if (!takes_own_path(own, shape, cache != nullptr && use == WeightUse::repeated)) {
    return nullptr;
  }
  if (cache == nullptr) {
    return pack_weight(weight, shape.groups, shape.shuffle);
  }
  const Fingerprint print = fingerprint_of(weight, shape.groups, shape.shuffle);
  if (auto packed = cache->packed_weight(print)) {
    return packed;
  }
  auto packed = pack_weight(weight, shape.groups, shape.shuffle);
  // What changes in every step is not worth its memory.
  if (use == WeightUse::repeated || cache->sees_again(print)) {
    cache->keep(packed);
  }
  return packed;
}

// The plan of a layer whose shifts are those of the tables, or `shift` where they are given.
std::shared_ptr<const LayerPlan> make_plan(const Layer& layer, const std::vector<int64_t>* shift,
                                           const Fingerprint& print) {
  const int64_t intrinsic = layer.weight.size(0);
  auto plan = std::make_shared<LayerPlan>();
  plan->made_from = print;
  plan->channels =
      shift == nullptr ? read_tables(layer.tables, intrinsic) : read_tables(layer.tables, *shift, intrinsic);
  const auto channels = static_cast<int64_t>(plan->channels.origins.size());
  const fused::WeightSize size{
      .out = intrinsic / layer.geometry.groups, .groups = layer.geometry.groups, .shuffle = layer.shuffle};
  plan->groups = fused::make_channel_groups(plan->channels, size);
  plan->activation = check_activation(layer.activation, channels, layer.weight);
  plan->slopes = read_slopes(layer.activation, plan->activation, channels);
  return plan;
}

// Of all that a plan is made from, apart from the selection of shifts.
Fingerprint fingerprint_of(const Layer& layer) {
  Fingerprint print;
  print.add(layer.weight.size(0));
  print.add(layer.geometry.groups);
  print.add(layer.shuffle);
  print.add(static_cast<int64_t>(layer.weight.scalar_type()));
  add_constant(print, layer.tables.source);
  add_constant(print, layer.tables.gain);
  add_constant(print, layer.tables.ghost_bias);
  add_constant(print, layer.tables.order);
  const std::string& name = layer.activation.name.text;
  print.add(name.data(), name.size());
  print.add(&layer.activation.negative_slope, sizeof(layer.activation.negative_slope));
  add_constant(print, layer.activation.prelu_weight);
  return print;
}

std::shared_ptr<const LayerPlan> plan_of(const Layer& layer, LayerCache* cache) {
  const auto fingerprint = [&] {
    Fingerprint print = fingerprint_of(layer);
    add_constant(print, *layer.tables.shift);
    return print;
  };
  Fingerprint print;
  if (cache != nullptr) {
    print = fingerprint();
    if (auto plan = cache->plan(print)) {
      return plan;
    }
  }
  check_tables(layer.tables, layer.weight.size(0), layer.weight);
  auto plan = make_plan(layer, nullptr, print);
  // Unless somebody wrote to a table before it was read for the plan.
  if (cache != nullptr && fingerprint() == print) {
    cache->keep(plan);
  }
  return plan;
}

struct Selection {
  const Tensor& logits;
  const OptionalTensor& noise;
  double tau;
};

std::shared_ptr<const LayerPlan> plan_of(const Layer& layer, const Selection& selection, LayerCache* cache) {
  // Noise is another one in every call.
  const bool keeps = cache != nullptr && !selection.noise.has_value();
  const auto fingerprint = [&] {
    Fingerprint print = fingerprint_of(layer);
    add_constant(print, selection.logits);
    print.add(&selection.tau, sizeof(selection.tau));
    return print;
  };
  Fingerprint print;
  if (keeps) {
    print = fingerprint();
    if (auto plan = cache->plan(print)) {
      return plan;
    }
  }
  check_tables(layer.tables, layer.weight.size(0), layer.weight);
  const int64_t ghosts = layer.tables.source.size(0);
  const int64_t max_shift =
      check_logits(selection.logits, selection.noise, selection.tau, ghosts, layer.weight);
  const std::vector<int64_t> shift =
      selected_shifts(selection.logits, selection.noise, selection.tau, ghosts, max_shift);
  auto plan = make_plan(layer, &shift, print);
  if (keeps && fingerprint() == print) {
    cache->keep(plan);
  }
  return plan;
}

// The map itself, or a copy in `room` where that is given.
Tensor placed(const Tensor& map, const OptionalTensor& room) {
  if (!room.has_value()) {
    return map;
  }
  Tensor copy = *room;
  torch::stable::copy_(copy, map);
  return copy;
}

// Returns the output, which is `room` where that is given.
Tensor run_layer(const Tensor& input, const Layer& layer, const LayerPlan& plan, const Epilogue& epilogue,
                 LayerCache* cache, WeightUse use = WeightUse::repeated,
                 const OptionalTensor& room = std::nullopt) {
  const Tensor& weight = layer.weight;
  check_input_size(input, weight, layer.geometry);
  const auto channels = static_cast<int64_t>(plan.channels.origins.size());
  const fused::Shape shape =
      fused_shape(input, weight, layer.geometry, channels - weight.size(0), layer.shuffle);
  const int64_t shuffle = layer.shuffle;
  if (epilogue.residual.has_value() || room.has_value()) {
    const IntList convolved = convolved_size(input, weight, layer.geometry);
    if (epilogue.residual.has_value()) {
      check_like_output("residual", *epilogue.residual, {input.size(0), channels, convolved[0], convolved[1]},
                        input);
    }
    if (room.has_value()) {
      check_like_output(
          "out", *room,
          {input.size(0), channels / (shuffle * shuffle), shuffle * convolved[0], shuffle * convolved[1]},
          input);
    }
  }
  const Activation activation{plan.activation, plan.slopes.data()};
  // A residual lies as the map before the shuffle does, which our own kernels do not make.
  const bool apart = shuffle > 1 && epilogue.residual.has_value();
  const ConvolutionPath own = apart ? ConvolutionPath::aten : own_path(input, weight, layer.geometry);
  if (const auto packed = packed_weight_of(weight, shape, own, cache, use)) {
    const FusedLayer fused{shape,
                           packed->data,
                           layer.bias,
                           plan.channels,
                           plan.groups.data(),
                           activation,
                           epilogue.residual,
                           epilogue.residual_scale};
    if (shuffle == 1 && room.has_value() && (room->stride(1) == 1 || channels == 1)) {
      Tensor output = *room;
      run_fused(input, fused, output);
      return output;
    }
    return placed(run_fused(input, fused), room);
  }
  const Tensor intrinsic = convolve(input, weight, layer.bias, layer.geometry);
  const bool channels_last = convolves_to_channels_last(input, weight);
  const Tensor output = run_shift_concat(intrinsic, plan.channels, activation, epilogue.residual,
                                         epilogue.residual_scale, channels_last);
  return placed(shuffle == 1 ? output : pixel_shuffle(output, shuffle, channels_last), room);
}

Tensor ghost_conv_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const Tensor& source, const Tensor& shift, const OptionalTensor& gain,
                      const OptionalTensor& ghost_bias, const OptionalTensor& order, const IntList& stride,
                      const IntList& padding, const IntList& dilation, int64_t groups, const Name& activation,
                      double negative_slope, const OptionalTensor& prelu_weight,
                      const OptionalTensor& residual, double residual_scale, int64_t shuffle,
                      const OptionalTensor& cache, bool learning) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_filters(input, weight, bias, geometry);
  check_shuffle(shuffle, weight.size(0) + source.numel());
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  const ActivationArguments arguments{activation, negative_slope, prelu_weight};
  const Layer layer{weight, bias, geometry, tables, arguments, shuffle};
  const std::shared_ptr<LayerCache> kept = cache_of(cache);
  return run_layer(input, layer, *plan_of(layer, kept.get()), {residual, residual_scale}, kept.get(),
                   learning ? WeightUse::learning : WeightUse::repeated);
}

void ghost_conv_out_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        const Tensor& source, const Tensor& shift, const OptionalTensor& gain,
                        const OptionalTensor& ghost_bias, const OptionalTensor& order, const IntList& stride,
                        const IntList& padding, const IntList& dilation, int64_t groups,
                        const Name& activation, double negative_slope, const OptionalTensor& prelu_weight,
                        const OptionalTensor& residual, double residual_scale, int64_t shuffle,
                        const OptionalTensor& cache, bool learning, const Tensor& out) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_filters(input, weight, bias, geometry);
  check_shuffle(shuffle, weight.size(0) + source.numel());
  const GhostTables tables{source, &shift, gain, ghost_bias, order};
  const ActivationArguments arguments{activation, negative_slope, prelu_weight};
  const Layer layer{weight, bias, geometry, tables, arguments, shuffle};
  const std::shared_ptr<LayerCache> kept = cache_of(cache);
  run_layer(input, layer, *plan_of(layer, kept.get()), {residual, residual_scale}, kept.get(),
            learning ? WeightUse::learning : WeightUse::repeated, out);
}

Tensor ghost_conv_learned_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                              const Tensor& source, const Tensor& logits, const OptionalTensor& noise,
                              double tau, const OptionalTensor& gain, const OptionalTensor& ghost_bias,
                              const OptionalTensor& order, const IntList& stride, const IntList& padding,
                              const IntList& dilation, int64_t groups, const Name& activation,
                              double negative_slope, const OptionalTensor& prelu_weight,
                              const OptionalTensor& residual, double residual_scale,
                              const OptionalTensor& cache) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_filters(input, weight, bias, geometry);
  const GhostTables tables{source, nullptr, gain, ghost_bias, order};
  const ActivationArguments arguments{activation, negative_slope, prelu_weight};
  const Layer layer{weight, bias, geometry, tables, arguments};
  const std::shared_ptr<LayerCache> kept = cache_of(cache);
  return run_layer(input, layer, *plan_of(layer, {logits, noise, tau}, kept.get()),
                   {residual, residual_scale}, kept.get());
}

Tensor convolution_cpu(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const IntList& stride, const IntList& padding, const IntList& dilation, int64_t groups,
                       const OptionalTensor& cache) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, bias, geometry);
  const fused::Shape shape = fused_shape(input, weight, geometry, 0);
  const ConvolutionPath own = own_path(input, weight, geometry);
  const std::shared_ptr<LayerCache> kept = cache_of(cache);
  if (const auto packed = packed_weight_of(weight, shape, own, kept.get(), WeightUse::learning)) {
    const ChannelPlan plan =
        make_channel_plan(weight.size(0), 0, nullptr, nullptr, nullptr, nullptr, nullptr);
    return run_fused(input, {shape, packed->data, bias, plan, nullptr, {}, std::nullopt, 1.0});
  }
  return densely_laid_out(convolve(input, weight, bias, geometry), convolves_to_channels_last(input, weight));
}

// Reads shapes, dtypes and strides alone, so the tensors may be uninitialised.
int64_t packed_weight_bytes(const Tensor& input, const Tensor& weight, const IntList& stride,
                            const IntList& padding, const IntList& dilation, int64_t groups, int64_t ghosts) {
  const ConvolutionGeometry geometry{stride, padding, dilation, groups};
  check_convolution(input, weight, std::nullopt, geometry);
  const bool taken =
      takes_own_path(own_path(input, weight, geometry), fused_shape(input, weight, geometry, ghosts), true);
  return taken ? packed_bytes(weight, groups) : 0;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ghostsr, CPU, library) {
  library.impl("convolution", GHOSTSR_BOX(&convolution_cpu));
  library.impl("packed_weight_bytes", GHOSTSR_BOX(&packed_weight_bytes));
  library.impl("ghost_conv", GHOSTSR_BOX(&ghost_conv_cpu));
  library.impl("ghost_conv.out", GHOSTSR_BOX(&ghost_conv_out_cpu));
  library.impl("ghost_conv_learned", GHOSTSR_BOX(&ghost_conv_learned_cpu));
}

}  // namespace ghostsr::ops
