// What follows the convolution, row by row: each output channel is fetched from its intrinsic channel at its
// shift into a chunk of pixels in the first-level cache; the chunk then gets the residual and the activation
// on its way out.
#pragma once

#include "core/fused/kernels/simd.h"
#include "core/fused/stages.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// One group of output channels whose eight sources lie side by side.
template <bool affine>
GHOSTSR_ALWAYS_INLINE void assemble_together(const ChannelGroup& group, const float* const* rows,
                                             std::ptrdiff_t start, int pixels, std::ptrdiff_t stride,
                                             float* to, std::ptrdiff_t to_stride) {
  constexpr int kWidth = kGroupLanes;
  for (int half = kGroup - kWidth; half >= 0; half -= kWidth) {
    const float* from = rows[group.dy[half]] + start + group.offset[half];
    const Vector<kWidth> gain = load<kWidth>(group.gain + half);
    const Vector<kWidth> bias = load<kWidth>(group.bias + half);
    float* pixel = to + half;
    for (int x = 0; x < pixels; ++x) {
      Vector<kWidth> value = load<kWidth>(from);
      if constexpr (affine) {
        value = value * gain + bias;
      }
      store<kWidth>(pixel, value);
      from += stride;
      pixel += to_stride;
    }
  }
}

template <int lanes>
GHOSTSR_ALWAYS_INLINE Vector<lanes> gather(const float* const (&from)[lanes], std::ptrdiff_t at) {
  if constexpr (lanes == 8) {
    return Vector<lanes>{from[0][at], from[1][at], from[2][at], from[3][at],
                         from[4][at], from[5][at], from[6][at], from[7][at]};
  } else {
    return Vector<lanes>{from[0][at], from[1][at], from[2][at], from[3][at]};
  }
}

// One group of output channels with a place of its own for each lane.
template <bool affine>
GHOSTSR_ALWAYS_INLINE void assemble_scattered(const ChannelGroup& group, const float* const* rows,
                                              std::ptrdiff_t start, int pixels, std::ptrdiff_t stride,
                                              float* to, std::ptrdiff_t to_stride) {
  constexpr int kWidth = kGroupLanes;
  for (int half = kGroup - kWidth; half >= 0; half -= kWidth) {
    const float* from[kWidth];
#pragma GCC unroll 8
    for (int lane = 0; lane < kWidth; ++lane) {
      from[lane] = rows[group.dy[half + lane]] + start + group.offset[half + lane];
    }
    const Vector<kWidth> gain = load<kWidth>(group.gain + half);
    const Vector<kWidth> bias = load<kWidth>(group.bias + half);
    float* pixel = to + half;
    const std::ptrdiff_t end = pixels * stride;
    for (std::ptrdiff_t at = 0; at < end; at += stride) {
      Vector<kWidth> value = gather<kWidth>(from, at);
      if constexpr (affine) {
        value = value * gain + bias;
      }
      store<kWidth>(pixel, value);
      pixel += to_stride;
    }
  }
}

template <bool affine>
GHOSTSR_ALWAYS_INLINE void assemble_group(const ChannelGroup& group, const float* const* rows,
                                          std::ptrdiff_t start, int pixels, std::ptrdiff_t stride, float* to,
                                          std::ptrdiff_t to_stride) {
  if (group.together) {
    assemble_together<affine>(group, rows, start, pixels, stride, to, to_stride);
  } else {
    assemble_scattered<affine>(group, rows, start, pixels, stride, to, to_stride);
  }
}

// Output channels of `pixels` pixels from `first` on, into `chunk`. The last group may write a few floats
// past its pixel; it goes first, so that the other groups, or its own next pixel, write over them.
template <bool affine>
[[gnu::noinline]] void assemble(const Epilogue& epilogue, const EpilogueRow& row, int first, int pixels,
                                const char* prefetch, std::ptrdiff_t prefetch_bytes) {
  const int groups = (epilogue.out_channels + kGroup - 1) / kGroup;
  const std::ptrdiff_t stride = epilogue.intrinsic_channels;
  const std::ptrdiff_t share = ((prefetch_bytes + groups - 1) / groups + 63) / 64 * 64;
  for (int step = 0; step < groups; ++step) {
    for (std::ptrdiff_t byte = step * share; byte < (step + 1) * share && byte < prefetch_bytes; byte += 64) {
      __builtin_prefetch(prefetch + byte, 0, 3);
    }
    const int group = (step + groups - 1) % groups;
    assemble_group<affine>(epilogue.groups[group], row.rows, first * stride, pixels, stride,
                           row.chunk + group * kGroup, epilogue.out_channels);
  }
}

template <int lanes, bool has_residual, bool has_relu>
GHOSTSR_ALWAYS_INLINE Vector<lanes> finish_vector(const float* chunk, const float* residual,
                                                  std::ptrdiff_t at, float scale) {
  Vector<lanes> value = load<lanes>(chunk + at) * scale;
  if constexpr (has_residual) {
    value = value + load<lanes>(residual + at);
  }
  if constexpr (has_relu) {
    value = relu<lanes>(value);
  }
  return value;
}

// output[i] = activation(scale * chunk[i] + residual[i]). The first and last few floats go one by one, so
// that streamed vectors are aligned.
template <bool has_residual, bool has_relu>
[[gnu::noinline]] void finish(const float* chunk, const float* residual, float scale, float* output,
                              std::ptrdiff_t count, bool streamed) {
  const auto finish_one = [&](std::ptrdiff_t i) {
    float value = chunk[i] * scale;
    if constexpr (has_residual) {
      value = value + residual[i];
    }
    if constexpr (has_relu) {
      value = value < 0.0F ? 0.0F : value;
    }
    output[i] = value;
  };
  std::ptrdiff_t i = 0;
  if (streamed) {
    constexpr std::size_t kAlignment = kLanes * sizeof(float);
    for (; i < count && reinterpret_cast<std::size_t>(output + i) % kAlignment != 0; ++i) {
      finish_one(i);
    }
    for (; i + kLanes <= count; i += kLanes) {
      stream(output + i, finish_vector<kLanes, has_residual, has_relu>(chunk, residual, i, scale));
    }
  } else {
    for (; i + kLanes <= count; i += kLanes) {
      store<kLanes>(output + i, finish_vector<kLanes, has_residual, has_relu>(chunk, residual, i, scale));
    }
  }
  for (; i < count; ++i) {
    finish_one(i);
  }
}

static void finish_row(const Epilogue& epilogue, const EpilogueRow& row) {
  const int step = epilogue.chunk_pixels;
  const std::ptrdiff_t channels = epilogue.out_channels;
  for (int first = 0; first < row.width; first += step) {
    const int pixels = row.width - first < step ? row.width - first : step;
    const std::ptrdiff_t offset = first * channels;
    const char* prefetch = nullptr;
    std::ptrdiff_t prefetch_bytes = 0;
    if (row.residual != nullptr) {
      prefetch = reinterpret_cast<const char*>(row.residual + offset);
      prefetch_bytes = pixels * channels * static_cast<std::ptrdiff_t>(sizeof(float));
    }
    if (epilogue.affine) {
      assemble<true>(epilogue, row, first, pixels, prefetch, prefetch_bytes);
    } else {
      assemble<false>(epilogue, row, first, pixels, prefetch, prefetch_bytes);
    }

    const std::ptrdiff_t count = pixels * channels;
    float* output = row.output + offset;
    if (row.residual != nullptr && epilogue.relu) {
      finish<true, true>(row.chunk, row.residual + offset, epilogue.scale, output, count, epilogue.stream);
    } else if (row.residual != nullptr) {
      finish<true, false>(row.chunk, row.residual + offset, epilogue.scale, output, count, epilogue.stream);
    } else if (epilogue.relu) {
      finish<false, true>(row.chunk, nullptr, epilogue.scale, output, count, epilogue.stream);
    } else {
      finish<false, false>(row.chunk, nullptr, epilogue.scale, output, count, epilogue.stream);
    }
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
