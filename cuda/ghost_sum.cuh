#pragma once

#include "activation.cuh"
#include "device_tables.cuh"
#include "ghost_sum.h"
#include "tiling.cuh"

namespace ghostsr::cuda {

constexpr int kWarpLanes = 32;
constexpr int kWalkers = kThreads / kWarpLanes;
constexpr int kStripRows = 32;
// More blocks than this only lengthen the second stage.
constexpr int64_t kMostSumBlocks = 4096;

// The maps are cut in strips of kStripRows rows, one column wide for each lane. Lanes are neighbouring
// columns of one ghost, or one column of neighbouring ghosts in a channels_last map: either way they read
// neighbouring memory.
struct StripTiling {
  bool channels_innermost;
  int32_t units;  // strips of all lanes, of the whole batch
  int32_t parts;
  int64_t blocks;
  FastDivisor ghost_blocks;
  FastDivisor columns;  // units side by side
  FastDivisor strips;   // units of a map's height

  static StripTiling of(const Extent& extent, int64_t ghosts, bool channels_innermost) {
    StripTiling tiling{};
    tiling.channels_innermost = channels_innermost;
    const int64_t ghost_blocks = channels_innermost ? divide_up(ghosts, kWarpLanes) : ghosts;
    const int64_t columns = channels_innermost ? extent.width : divide_up(extent.width, kWarpLanes);
    const int64_t strips = divide_up(extent.height, kStripRows);
    tiling.units = checked_int("strips of rows in the batch", extent.batch * strips * columns);
    const int64_t most_parts = ghost_blocks < kMostSumBlocks ? kMostSumBlocks / ghost_blocks : 1;
    const int64_t parts = divide_up(tiling.units, kWalkers);
    tiling.parts = static_cast<int32_t>(parts < most_parts ? parts : most_parts);
    tiling.blocks = ghost_blocks * tiling.parts;
    tiling.ghost_blocks = FastDivisor(static_cast<int32_t>(ghost_blocks));
    tiling.columns = FastDivisor(static_cast<int32_t>(columns));
    tiling.strips = FastDivisor(static_cast<int32_t>(strips));
    return tiling;
  }
};

// dL/dghost at a pixel of the ghost's output channel, as it was before the activation, without the gain.
template <typename T>
__device__ __forceinline__ accumulator_t<T> ghost_gradient(const GhostSumArguments<T>& arguments,
                                                           const ChannelLink<accumulator_t<T>>& link,
                                                           int64_t n, int32_t y, int32_t x) {
  using A = accumulator_t<T>;
  const OutputGradient<T>& gradient = arguments.gradient;
  const Strides& from = gradient.strides;
  const A value =
      widen(load(gradient.data + n * from.batch + link.output * from.channel + y * from.y + x * from.x)) *
      gradient.residual_scale;
  if (gradient.mask_source == MaskSource::none) {
    return value;
  }
  A seen = A(0);
  if (gradient.mask_source == MaskSource::output) {
    const Strides& out = gradient.output_strides;
    seen = widen(load(gradient.output + n * out.batch + link.output * out.channel + y * out.y + x * out.x));
  } else {
    const Strides& in = gradient.intrinsic_strides;
    const int32_t source_y = y + link.dy;
    const int32_t source_x = x + link.dx;
    if (source_y >= 0 && source_y < arguments.extent.height && source_x >= 0 &&
        source_x < arguments.extent.width) {
      seen = widen(load(gradient.intrinsic + n * in.batch + link.source * in.channel + source_y * in.y +
                        source_x * in.x));
    }
    seen = seen * (link.gain * gradient.residual_scale) + link.bias * gradient.residual_scale;
  }
  return activation_gradient(gradient.activation, seen, value, link.slope);
}

// Blocks for a multiprocessor that the sums of so many columns ask for; a wide window of doubles fills the
// registers of one.
template <typename T, int kColumns>
constexpr int kSumBlocks = kColumns <= 3    ? kBlocksAsked<T>
                           : sizeof(T) == 8 ? 1
                                            : 2;

// kRows by kColumns sums at a time: the gradient of a pixel times the intrinsic pixels of that window, which
// slides down a column and stays in registers. The sums of a window with more rows take as many sweeps over
// the part.
template <typename T, int kRows, int kColumns>
__global__ void __launch_bounds__(kThreads, kSumBlocks<T, kColumns>)
    ghost_sum(const GhostSumArguments<T> arguments, const StripTiling tiling) {
  using A = accumulator_t<T>;
  __shared__ A shared[kRows * kColumns][kWalkers][kWarpLanes];
  const Quotient block = tiling.ghost_blocks.divide(static_cast<int32_t>(blockIdx.x));
  const int32_t part = block.value;
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarpLanes;
  const auto walker = static_cast<int32_t>(threadIdx.x) / kWarpLanes;
  const int32_t ghost = tiling.channels_innermost ? block.remainder * kWarpLanes + lane : block.remainder;
  const bool exists = ghost < arguments.ghosts;
  ChannelLink<A> link = {-1, 0, 0, 0, A(0), A(0), A(0)};
  if (exists) {
    link = arguments.links[ghost];
  }
  const auto height = static_cast<int32_t>(arguments.extent.height);
  const auto width = static_cast<int32_t>(arguments.extent.width);
  const auto first_unit = static_cast<int32_t>(int64_t{part} * tiling.units / tiling.parts);
  const auto last_unit = static_cast<int32_t>((int64_t{part} + 1) * tiling.units / tiling.parts);
  const bool candidates = arguments.kind == GhostSum::candidates;
  const int32_t window = candidates ? 2 * arguments.max_shift + 1 : 1;
  const int32_t dx = candidates ? -arguments.max_shift : link.dx;
  const Strides& in = arguments.gradient.intrinsic_strides;
  for (int32_t sweep = 0; sweep < window; sweep += kRows) {
    const int32_t dy = candidates ? sweep - arguments.max_shift : link.dy;
    A sums[kRows][kColumns] = {};
    for (int32_t unit = first_unit + walker; unit < last_unit; unit += kWalkers) {
      const Quotient strip = tiling.columns.divide(unit);
      const Quotient image = tiling.strips.divide(strip.value);
      const int64_t n = image.value;
      const int32_t x = tiling.channels_innermost ? strip.remainder : strip.remainder * kWarpLanes + lane;
      if (link.output < 0 || x >= width) {
        continue;
      }
      const T* source = arguments.gradient.intrinsic + n * in.batch + link.source * in.channel;
      A pixels[kRows][kColumns] = {};
      const auto read_row = [&](int32_t y, A(&row)[kColumns]) {
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
          const int32_t source_x = x + dx + column;
          const bool inside = column < window && y >= 0 && y < height && source_x >= 0 && source_x < width;
          row[column] = inside ? widen(load(source + y * in.y + source_x * in.x)) : A(0);
        }
      };
      const int32_t begin = image.remainder * kStripRows;
      const int32_t end = height - begin < kStripRows ? height : begin + kStripRows;
#pragma unroll
      for (int row = 0; row < kRows - 1; ++row) {
        read_row(begin + dy + row, pixels[row]);
      }
      for (int32_t y = begin; y < end; ++y) {
        if (arguments.kind == GhostSum::total) {
          pixels[kRows - 1][0] = A(1);
        } else {
          read_row(y + dy + kRows - 1, pixels[kRows - 1]);
        }
        const A gradient = ghost_gradient(arguments, link, n, y, x);
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
#pragma unroll
          for (int column = 0; column < kColumns; ++column) {
            sums[row][column] += gradient * pixels[row][column];
          }
        }
#pragma unroll
        for (int row = 0; row < kRows - 1; ++row) {
#pragma unroll
          for (int column = 0; column < kColumns; ++column) {
            pixels[row][column] = pixels[row + 1][column];
          }
        }
      }
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
        shared[row * kColumns + column][walker][lane] = sums[row][column];
      }
    }
    __syncthreads();
    for (auto index = static_cast<int32_t>(threadIdx.x); index < kRows * kColumns * kWarpLanes;
         index += kThreads) {
      A(&walkers)[kWalkers][kWarpLanes] = shared[index / kWarpLanes];
      A sum = A(0);
#pragma unroll
      for (int other = 0; other < kWalkers; ++other) {
        sum += walkers[other][index % kWarpLanes];
      }
      walkers[0][index % kWarpLanes] = sum;
    }
    __syncthreads();
    // One thread for each sum that the block has: of each ghost of its lanes, or of its one ghost.
    const int32_t owners = tiling.channels_innermost ? kWarpLanes : 1;
    for (auto index = static_cast<int32_t>(threadIdx.x); index < kRows * kColumns * owners;
         index += kThreads) {
      const int32_t owner = index % owners;
      const int32_t row = index / owners / kColumns;
      const int32_t column = index / owners % kColumns;
      const int32_t owned = tiling.channels_innermost ? block.remainder * kWarpLanes + owner : ghost;
      const A(&lanes)[kWarpLanes] = shared[row * kColumns + column][0];
      A sum = lanes[owner];
      for (int other = 1; other < (tiling.channels_innermost ? 1 : kWarpLanes); ++other) {
        sum += lanes[other];
      }
      if (owned < arguments.ghosts && column < window) {
        store(arguments.partial + (int64_t{part} * arguments.ghosts + owned) * window * window +
                  (sweep + row) * window + column,
              sum);
      }
    }
    __syncthreads();
  }
}

template <typename A, typename Sum>
__global__ void __launch_bounds__(kThreads)
    reduce_parts(const A* partial, int64_t parts, int64_t count, int64_t width, const ChannelLink<A>* links,
                 Sum* sums) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) {
    return;
  }
  double sum = 0;
  for (int64_t part = 0; part < parts; ++part) {
    sum += static_cast<double>(load(partial + part * count + index));
  }
  if (links != nullptr) {
    sum *= static_cast<double>(links[index / width].gain);
  }
  store(sums + index, narrow<Sum>(static_cast<accumulator_t<Sum>>(sum)));
}

template <typename T>
bool channels_innermost(const OutputGradient<T>& gradient) {
  return gradient.strides.channel == 1 && gradient.strides.x != 1;
}

template <typename T>
int64_t ghost_sum_parts(const Extent& extent, int64_t ghosts, const OutputGradient<T>& gradient) {
  const bool empty = ghosts == 0 || extent.batch == 0 || extent.height == 0 || extent.width == 0;
  return empty ? 0 : StripTiling::of(extent, ghosts, channels_innermost(gradient)).parts;
}

template <typename T>
void launch_ghost_sum(const GhostSumArguments<T>& arguments, cudaStream_t stream) {
  const StripTiling tiling =
      StripTiling::of(arguments.extent, arguments.ghosts, channels_innermost(arguments.gradient));
  const int64_t blocks = tiling.blocks;
  if (arguments.kind != GhostSum::candidates) {
    launch("ghost_sum", ghost_sum<T, 1, 1>, blocks, kThreads, stream, arguments, tiling);
  } else if (arguments.max_shift == 1) {
    launch("ghost_sum", ghost_sum<T, 3, 3>, blocks, kThreads, stream, arguments, tiling);
  } else {
    launch("ghost_sum", ghost_sum<T, 1, 2 * kMostShift + 1>, blocks, kThreads, stream, arguments, tiling);
  }
}

template <typename A, typename Sum>
void launch_reduce_parts(const A* partial, int64_t parts, int32_t ghosts, int64_t width,
                         const ChannelLink<A>* links, Sum* sums, cudaStream_t stream) {
  const int64_t count = ghosts * width;
  launch("reduce_parts", reduce_parts<A, Sum>, divide_up(count, kThreads), kThreads, stream, partial, parts,
         count, width, links, sums);
}

}  // namespace ghostsr::cuda
