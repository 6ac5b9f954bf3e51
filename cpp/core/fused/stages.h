// The stages of the convolution, as each SIMD level compiles them. They share nothing but these plain
// structs: no inline function of this header may end up compiled for one level and called by another.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/activation.h"
#include "core/half.h"
#include "core/simd/block_sizes.h"

namespace ghostsr::fused {

// One picture of the input, channels side by side; of a grouped convolution, those of one group.
template <class T>
struct InputMapOf {
  const T* data;
  std::ptrdiff_t stride_y;
  std::ptrdiff_t stride_x;
  int height;
  int width;
  int channels;
  int padding_y;
  int padding_x;
};
using InputMap = InputMapOf<float>;

// A run of tiles, counted row by row over a grid of `columns` tiles a row. In Winograd's convolution tile (r,
// c) makes the output pixels 4r..4r+3, 4c..4c+3 from the input pixels 4r - padding_y .. 4r - padding_y + 5,
// and so for c. In a 1x1 convolution a tile is a pixel; in bfloat16 it is kTilePixels pixels of a row.
struct TileRun {
  std::int64_t first;
  int count;
  int columns;
};

// A matrix for each component: a row for each tile, `row_stride` floats apart; the components
// `component_stride` floats apart.
template <class Float>
struct Matrices {
  Float* data;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t component_stride;
};
using ComponentMatrices = Matrices<float>;
using ConstComponentMatrices = Matrices<const float>;

// Intrinsic rows, by y modulo `rows`. A row is `margin` zero pixels, the map's pixels, those that complete
// its last tile, and as many zero pixels as a shift may reach beyond the map.
struct LineBuffer {
  float* data;
  std::ptrdiff_t row_stride;
  int rows;
  int margin;
  int channels;  // of a pixel, padded
};

// The intrinsic channels first..first + count - 1 of a padded pixel; both are multiples of 8.
struct ChannelRange {
  int first;
  int count;
};

// output = input * weight + bias, for each component.
struct Product {
  ConstComponentMatrices input;  // tiles x in
  ComponentMatrices output;      // tiles x padded_out
  const float* packed_weight;    // of a group
  const float* bias;             // [padded_out], or null for none
  int components;
  int tiles;
  int in;
  int padded_out;
};

// What a tile of bfloat16 holds: so many pixels, and of each so many inputs of the sums; the weight's tiles
// hold as many inputs for each of so many output channels.
inline constexpr int kTilePixels = 16;
inline constexpr int kTileInputs = 32;
inline constexpr int kTileOutputs = 16;
inline constexpr int kTileElements = kTileInputs * kTileOutputs;

// output = bias + the sum over the kernel's rows and over the inputs of each row, the channels of
// neighbouring pixels one after another, of input times weight.
struct TileProduct {
  const BFloat16*
      rows[3];  // at the first pixel's first input; read up to kTileInputs * steps from each pixel
  int row_count;
  std::ptrdiff_t pixel_stride;
  int steps;                      // tiles of inputs in a row
  const BFloat16* packed_weight;  // of a group
  const float* bias;              // [padded_out], and readable up to a multiple of kTileOutputs
  float* output;
  std::ptrdiff_t output_stride;  // between pixels
  int tiles;                     // of pixels
  int padded_out;                // a multiple of 8
  const char* prefetch;          // fetched meanwhile: what the next row will read
  std::ptrdiff_t prefetch_bytes;
};

// Floats of the widest vectors.
inline constexpr int kMostLanes = 16;

// Where eight neighbouring output channels come from. Lanes past the last output channel repeat lane 0.
struct ChannelGroup {
  int dy[kGroup];
  std::ptrdiff_t offset[kGroup];  // dx * (padded intrinsic channels) + source
  float gain[kGroup];
  float bias[kGroup];

  // The vector loads of eight that bring all lanes, each lane from its place in one of them; none where a
  // load would reach beyond its pixel.
  int loads;
  std::int32_t load_of[kGroup];  // the one that brings the lane
  int load_dy[kGroup];           // of each load
  std::ptrdiff_t load_offset[kGroup];
};

struct Epilogue {
  const ChannelGroup* groups;
  int out_channels;
  int intrinsic_channels;  // of an intrinsic pixel, padded
  int chunk_pixels;        // assembled at a time, in the first-level cache
  bool affine;
  bool in_order;  // a pixel's output channels are intrinsic ones of the same pixel that lie side by side
  float scale;
  ActivationKind activation;
  const float* slopes;  // of `leaky`: those of a chunk's first slope_period + kMostLanes elements
  int slope_period;     // a multiple of out_channels, and not less than kMostLanes
  bool stream;          // write past the caches
};

// One output row. `rows` points at the intrinsic row of the same y; rows[dy] is the map's pixel 0 of row y +
// dy.
template <class T>
struct EpilogueRow {
  const float* const* rows;
  const T* residual;  // or null
  T* output;
  std::ptrdiff_t output_stride;  // between pixels
  int width;
  float* chunk;  // chunk_pixels * out_channels + kGroup floats
};

// Some input channels of the kernels of one panel of output channels. Strides in floats may be any.
struct KernelPanel {
  const float* data;
  int width;  // of the panel, 8 or 16
  int out;    // output channels that there are; the others are packed as zeros
  std::ptrdiff_t out_offset[2 * kGroup];
  std::ptrdiff_t in;
  int kernel;  // 3 or 1
  std::ptrdiff_t stride_in;
  std::ptrdiff_t stride_y;
  std::ptrdiff_t stride_x;
};

struct Stages {
  // Writes the panel's components, `component_stride` floats apart.
  void (*pack)(const KernelPanel& panel, float* to, std::ptrdiff_t component_stride);

  // V = B^T d B for each tile. `patch` holds 36 * (channels padded to 8) floats.
  void (*transform_input)(const InputMap& input, const TileRun& tiles, float* patch,
                          const ComponentMatrices& transformed);

  // M = V U for each component; or, straight from the input's pixels to the line buffer's, a 1x1 convolution.
  void (*multiply)(const Product& product);

  // Y = A^T M A + bias for each tile, for one group. `bias` is padded as the line buffer's channels are.
  void (*transform_output)(const ComponentMatrices& product, const TileRun& tiles, const float* bias,
                           const ChannelRange& channels, const LineBuffer& lines);

  // Ghosts, order, gain, residual and activation of one output row.
  void (*finish_row)(const Epilogue& epilogue, const EpilogueRow<float>& row);
  void (*finish_bfloat16_row)(const Epilogue& epilogue, const EpilogueRow<BFloat16>& row);

  // A convolution in bfloat16, from rows of the input to rows of the line buffer.
  void (*multiply_tiles)(const TileProduct& product);

  // Orders streamed writes before what the thread does next.
  void (*fence)();

  // Tiles that a step of `multiply` takes at best.
  int kernel_rows;

  // Whether `multiply_tiles` uses instructions for tiles.
  bool has_tiles;
};

}  // namespace ghostsr::fused
