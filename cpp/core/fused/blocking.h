// How the work is cut, and where its intermediate results lie.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/fused/convolution.h"

namespace ghostsr::fused {

enum class Method { winograd, pointwise, direct };

// A picture is cut into strips of tile rows, which workers take one by one; a strip into bands of a few tile
// rows (one, unless the picture is narrow); a band into blocks of tiles, whose V and M, of a group at a time,
// stay in the second-level cache. In a 1x1 convolution a tile is a pixel and a band is a row; a block's input
// stays in the second-level cache. In bfloat16 a tile is some pixels of a row, and a band and a block are a
// row.
struct Blocking {
  int tile = 0;        // output rows of a tile
  int tile_width = 0;  // output pixels of a row of it
  int tile_rows = 0;   // of a picture
  int tile_columns = 0;
  int strips = 0;       // of a picture
  int band_rows = 0;    // tile rows of a band
  int block_tiles = 0;  // at most

  int padded_in = 0;         // of a group
  int padded_group = 0;      // intrinsic channels of a group
  int padded_intrinsic = 0;  // of all groups, each padded by itself
  int radius = 0;            // the largest shift

  int buffer_rows = 0;
  std::ptrdiff_t row_floats = 0;  // an intrinsic row with its margins

  std::ptrdiff_t input_component_floats = 0;   // between the components of V
  std::ptrdiff_t output_component_floats = 0;  // between the components of M

  int tile_steps = 0;                     // tiles of inputs in a row of the kernel, of bfloat16
  std::ptrdiff_t input_row_elements = 0;  // of a group, with its padding

  int chunk_pixels = 0;

  std::int64_t boundaries(std::int64_t batch) const { return batch * (strips - 1); }
};

Blocking make_blocking(const Shape& shape, Method method, int radius, int workers, int kernel_rows);

// Offsets, in floats, from the start of the workspace; those of a worker from the start of its part.
struct WorkspaceLayout {
  std::size_t bias = 0;
  std::size_t zero_row = 0;
  std::size_t boundary_rows = 0;      // [boundary][4 * radius] rows
  std::size_t boundary_arrivals = 0;  // [boundary] int32
  std::size_t workers = 0;

  std::size_t input_rows = 0;  // [group][kernel row] rows of bfloat16
  std::size_t patch = 0;
  std::size_t input_components = 0;
  std::size_t output_components = 0;
  std::size_t line_buffer = 0;
  std::size_t chunk = 0;
  std::size_t worker_floats = 0;

  std::size_t total = 0;
};

WorkspaceLayout make_workspace_layout(const Shape& shape, const Blocking& blocking, int workers);

// Floats of a cache line, to which every part of the workspace is aligned.
inline constexpr std::size_t kLineFloats = 16;

}  // namespace ghostsr::fused
