// The fused ghost convolution on the CPU, on channels_last tensors, stride 1, dilation 1, and all that
// follows in the same pass. In float32 a 3x3 one is computed by Winograd's F(4x4, 3x3), a 1x1 one by a plain
// matrix product; in bfloat16 both are products of matrices of pixels, with sums in float32. docs/winograd.md
// derives the first, docs/pointwise.md tells of the second; both explain the blocking.
//
// In the order of computation, for an input [N, C_in, H, W] and `intrinsic` = I, `ghost` = G, C_out = I + G:
//
//   Y = conv2d(input, weight, bias, padding, groups)                          [N, I, H', W']
//   ghost[g, y, x] = gain[g] * Y0[source[g], y + dy[g], x + dx[g]] + ghost_bias[g]
//   V = concat(Y, ghost)[order]                                               [N, C_out, H', W']
//   output = activation(residual_scale * V + residual)
//
// With a pixel shuffle by r the output is written as [N, C_out / r^2, r H', r W']: channel (c r + i) r + j at
// (y, x) becomes channel c at (r y + i, r x + j). There is no residual then.
//
// Y0 is Y, and zero outside of the map. A convolution without ghosts is the case G = 0.
//
// The result is the same bits for any number of workers and any order in which they run. In a 3x3 convolution
// a NaN or an infinity in the input makes NaNs of the whole 4x4 output tiles whose 6x6 input patches hold it,
// not only of its 3x3 neighbours; in bfloat16 it makes them of pixels to the left too, as far as 32 channels
// reach.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/activation.h"
#include "core/channel_plan.h"
#include "core/function_ref.h"
#include "core/geometry.h"
#include "core/half.h"
#include "core/parallel_for.h"

namespace ghostsr::fused {

struct ChannelGroup;
struct Stages;

// The largest padding of a 3x3 convolution; beyond it an output row would see no input at all.
inline constexpr int kMaxPadding = 2;

// What a weight is, apart from its values.
struct WeightSize {
  std::int64_t out = 0;  // of a group
  std::int64_t in = 0;   // of a group
  std::int64_t groups = 1;
  std::int64_t kernel = 3;   // 3 or 1, along either axis
  std::int64_t shuffle = 1;  // as in Shape
};

struct Shape {
  std::int64_t batch = 0;
  std::int64_t in_channels = 0;
  std::int64_t height = 0;  // of the input
  std::int64_t width = 0;
  std::int64_t intrinsic = 0;
  std::int64_t ghost = 0;
  std::int64_t padding_y = 1;
  std::int64_t padding_x = 1;
  std::int64_t groups = 1;   // divides the input and the intrinsic channels
  std::int64_t kernel = 3;   // 3, or 1 without padding
  std::int64_t shuffle = 1;  // factor of the pixel shuffle; its square divides the output channels

  std::int64_t out_channels() const { return intrinsic + ghost; }
  std::int64_t out_height() const { return height + 2 * padding_y - (kernel - 1); }
  std::int64_t out_width() const { return width + 2 * padding_x - (kernel - 1); }
  std::int64_t row_channels() const { return out_channels() / shuffle; }  // of a pixel, for one shuffled row
  WeightSize weight_size() const {
    return {intrinsic / groups, in_channels / groups, groups, kernel, shuffle};
  }
};

// A weight [groups, out, in, kernel, kernel] with any strides, in elements. The weight of the input's
// gradient is the forward weight with `out` and `in` exchanged and both kernel axes reversed: `data` at the
// last element of both, negative kernel strides, and a padding of kernel - 1 less the forward padding in
// Shape.
template <class T>
struct WeightOf {
  const T* data = nullptr;
  WeightSize size;
  std::int64_t stride_group = 0;
  std::int64_t stride_out = 0;
  std::int64_t stride_in = 0;
  std::int64_t stride_y = 0;
  std::int64_t stride_x = 0;
};
using Weight = WeightOf<float>;

// The number of elements of a packed weight. In float32: groups * in * (out rounded up to a multiple of 8),
// and 36 times as many for a 3x3 one. In bfloat16: as many as the weight has, with `out` rounded up to a
// multiple of 16 and the inputs of a row of the kernel to one of 32.
template <class T = float>
std::size_t packed_size(const WeightSize& size);

// Writes the weight as the kernels read it (layout: packed_weight.h), in few tasks or one if it is small. It
// serves every SIMD level, and can be copied as bytes. The kernels of `stages` make it, or those of this
// process's SIMD level.
void pack(const Weight& weight, float* packed, ParallelFor parallel, const Stages* stages = nullptr);
void pack(const WeightOf<BFloat16>& weight, BFloat16* packed);

// T, the type of the maps and the weight, is float or BFloat16.
template <class T>
struct ArgumentsOf {
  Shape shape;

  const T* input = nullptr;  // channels side by side; other strides, in elements, may be any
  std::int64_t input_stride_n = 0;
  std::int64_t input_stride_y = 0;
  std::int64_t input_stride_x = 0;

  const T* packed_weight = nullptr;
  const float* bias = nullptr;  // [I], or null for none

  const ChannelPlan* channels = nullptr;  // made for I intrinsic and G ghost channels
  const ChannelGroup* groups =
      nullptr;  // of make_channel_groups (channel_groups.h), or null to make them in the call

  const T* residual = nullptr;  // [N, H', W', C_out], dense, or null for none; may be the output itself
  float residual_scale = 1.0F;  // applied with and without a residual
  Activation activation;

  T* output = nullptr;  // channels side by side; other strides, in elements, may be any
  std::int64_t output_stride_n = 0;
  std::int64_t output_stride_y = 0;
  std::int64_t output_stride_x = 0;  // of shuffled pixels, their number of channels

  const Stages* stages =
      nullptr;  // the compiled kernels to use (stages.h), or null for this process's SIMD level
};
using Arguments = ArgumentsOf<float>;

// Gives memory for so many floats, which need not be initialised, until the call is over.
using WorkspaceSource = FunctionRef<float*(std::size_t floats)>;

// Computes the output. `workers` is the number of threads that `parallel` is expected to use: the work is cut
// into some strips for each, which whoever is free takes next. The workspace is a few rows of Y for each
// worker, whatever the height; it is asked for once, or not at all for an empty batch. Raises
// std::invalid_argument if a size is out of range, the output map would be empty, or the channel plan does
// not fit the shape or shifts by more than kMaxShift.
template <class T>
void run(const ArgumentsOf<T>& arguments, int workers, WorkspaceSource workspace, ParallelFor parallel);

// Whether this path was measured to be faster than a direct convolution for such a layer, with a packed
// weight at hand or with one that is packed for the call.
bool should_use_fused(const Shape& shape, bool packed);

// The same for bfloat16: never where the process's SIMD level multiplies no tiles of it.
bool should_use_fused_bfloat16(const Shape& shape);

}  // namespace ghostsr::fused
