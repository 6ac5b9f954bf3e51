// What follows the convolution, row by row: each output channel is fetched from its intrinsic channel at its
// shift into a chunk of pixels in the first-level cache; the chunk then gets the residual and the activation
// on its way out.
#pragma once

#include "core/fused/kernels/floats.h"

namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL {

// One group of output channels that come by so many vector loads.
template <bool affine, int loads>
GHOSTSR_ALWAYS_INLINE void assemble_loads(const ChannelGroup& group, const float* const* rows,
                                          std::ptrdiff_t start, int pixels, std::ptrdiff_t stride, float* to,
                                          std::ptrdiff_t to_stride) {
  constexpr int kWidth = kGroupLanes;
  for (int half = kGroup - kWidth; half >= 0; half -= kWidth) {
    const Vector<int32_t, kWidth> load_of = load_raw<kWidth>(group.load_of + half);
    const float* from[loads];
    Vector<int32_t, kWidth> taken[loads];
#pragma GCC unroll 8
    for (int index = 0; index < loads; ++index) {
      from[index] = rows[group.load_dy[index]] + start + group.load_offset[index] + half;
      taken[index] = load_of == index;
    }
    const Floats<kWidth> gain = load<kWidth>(group.gain + half);
    const Floats<kWidth> bias = load<kWidth>(group.bias + half);
    float* pixel = to + half;
    const std::ptrdiff_t end = pixels * stride;
    for (std::ptrdiff_t at = 0; at < end; at += stride) {
      Floats<kWidth> value = load<kWidth>(from[0] + at);
#pragma GCC unroll 8
      for (int index = 1; index < loads; ++index) {
        value = taken[index] ? load<kWidth>(from[index] + at) : value;
      }
      if constexpr (affine) {
        value = value * gain + bias;
      }
      store<kWidth>(pixel, value);
      pixel += to_stride;
    }
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
    const Floats<kWidth> gain = load<kWidth>(group.gain + half);
    const Floats<kWidth> bias = load<kWidth>(group.bias + half);
    float* pixel = to + half;
    const std::ptrdiff_t end = pixels * stride;
    for (std::ptrdiff_t at = 0; at < end; at += stride) {
      Floats<kWidth> value = gather<float, kWidth>(from, at);
      if constexpr (affine) {
        value = value * gain + bias;
      }
      store<kWidth>(pixel, value);
      pixel += to_stride;
    }
  }
}

// More loads than this take longer than a place for each lane, as any number does where no instruction blends
// two of them.
#if defined(__AVX2__)
inline constexpr int kMostLoads = kGroup;
#else
inline constexpr int kMostLoads = 1;
#endif

template <bool affine, int loads = kMostLoads>
GHOSTSR_ALWAYS_INLINE void assemble_group(const ChannelGroup& group, const float* const* rows,
                                          std::ptrdiff_t start, int pixels, std::ptrdiff_t stride, float* to,
                                          std::ptrdiff_t to_stride) {
  if constexpr (loads == 0) {
    assemble_scattered<affine>(group, rows, start, pixels, stride, to, to_stride);
  } else if (group.loads == loads) {
    assemble_loads<affine, loads>(group, rows, start, pixels, stride, to, to_stride);
  } else {
    assemble_group<affine, loads - 1>(group, rows, start, pixels, stride, to, to_stride);
  }
}

// Output channels of `pixels` pixels from `first` on, into `chunk`. The last group may write a few floats
// past its pixel; it goes first, so that the other groups, or its own next pixel, write over them.
template <bool affine>
[[gnu::noinline]] void assemble(const Epilogue& epilogue, const float* const* rows, float* chunk, int first,
                                int pixels, const char* prefetch, std::ptrdiff_t prefetch_bytes) {
  const int groups = (epilogue.out_channels + kGroup - 1) / kGroup;
  const std::ptrdiff_t stride = epilogue.intrinsic_channels;
  const std::ptrdiff_t share = ((prefetch_bytes + groups - 1) / groups + 63) / 64 * 64;
  for (int step = 0; step < groups; ++step) {
    for (std::ptrdiff_t byte = step * share; byte < (step + 1) * share && byte < prefetch_bytes; byte += 64) {
      __builtin_prefetch(prefetch + byte, 0, 3);
    }
    const int group = (step + groups - 1) % groups;
    assemble_group<affine>(epilogue.groups[group], rows, first * stride, pixels, stride,
                           chunk + group * kGroup, epilogue.out_channels);
  }
}

// Values that lie side by side in the chunk, in the residual and in the output.
template <class T>
struct Run {
  const float* chunk;
  const T* residual;
  T* output;
  std::ptrdiff_t count;  // whole pixels
};

// output[i] = activation(scale * chunk[i] + residual[i]). The first and last few floats go one by one, so
// that streamed vectors are aligned.
template <bool has_residual, ActivationKind activation, class T>
GHOSTSR_ALWAYS_INLINE void finish_run(const Epilogue& epilogue, const Run<T>& run) {
  const float scale = epilogue.scale;
  const std::ptrdiff_t period = epilogue.slope_period;
  std::ptrdiff_t i = 0;
  std::ptrdiff_t channel = 0;  // of element i, over as many pixels as the slopes are repeated for
  const auto finished = [&](auto lanes) __attribute__((always_inline)) {
    constexpr int kWidth = decltype(lanes)::value;
    Floats<kWidth> value = load<kWidth>(run.chunk + i) * scale;
    if constexpr (has_residual) {
      value = value + load<kWidth>(run.residual + i);
    }
    Floats<kWidth> slope{};
    if constexpr (activation == ActivationKind::leaky) {
      slope = load<kWidth>(epilogue.slopes + channel);
      channel += kWidth;
      channel = channel >= period ? channel - period : channel;
    }
    return activate<activation>(value, slope);
  };
  const auto finish_one = [&] {
    run.output[i] = T(finished(Constant<1>{})[0]);
    ++i;
  };
  if (epilogue.stream) {
    constexpr std::size_t kAlignment = kLanes * sizeof(T);
    while (i < run.count && reinterpret_cast<std::size_t>(run.output + i) % kAlignment != 0) {
      finish_one();
    }
    for (; i + kLanes <= run.count; i += kLanes) {
      stream_rounded(run.output + i, finished(Constant<kLanes>{}));
    }
  } else {
    for (; i + kLanes <= run.count; i += kLanes) {
      store_rounded<kLanes>(run.output + i, finished(Constant<kLanes>{}));
    }
  }
  while (i < run.count) {
    finish_one();
  }
}

// All pixels of a chunk: one run, or a run each where its pixels or the output's lie apart.
template <bool has_residual, ActivationKind activation, class T>
[[gnu::noinline]] void finish(const Epilogue& epilogue, Run<T> run, int pixels, std::ptrdiff_t chunk_stride,
                              std::ptrdiff_t output_stride) {
  const std::ptrdiff_t channels = epilogue.out_channels;
  const bool together = output_stride == channels && chunk_stride == channels;
  run.count = together ? pixels * channels : channels;
  for (int left = together ? 1 : pixels; left > 0; --left) {
    finish_run<has_residual, activation>(epilogue, run);
    run.chunk += chunk_stride;
    run.residual = has_residual ? run.residual + channels : nullptr;
    run.output += output_stride;
  }
}

template <class T>
GHOSTSR_ALWAYS_INLINE void finish_pixels(const Epilogue& epilogue, const EpilogueRow<T>& row, int first,
                                         int pixels, const float* chunk, std::ptrdiff_t chunk_stride) {
  choose(
      [&](auto has_residual, auto activation) {
        const std::ptrdiff_t offset = std::ptrdiff_t{first} * epilogue.out_channels;
        const Run<T> run{chunk, has_residual.value ? row.residual + offset : nullptr,
                         row.output + first * row.output_stride, 0};
        finish<decltype(has_residual)::value, decltype(activation)::value>(epilogue, run, pixels,
                                                                           chunk_stride, row.output_stride);
      },
      row.residual != nullptr, epilogue.activation);
}

template <class T>
void finish_row(const Epilogue& epilogue, const EpilogueRow<T>& row) {
  if (epilogue.in_order) {
    finish_pixels(epilogue, row, 0, row.width, row.rows[0] + epilogue.groups->load_offset[0],
                  epilogue.intrinsic_channels);
    return;
  }
  const int step = epilogue.chunk_pixels;
  const std::ptrdiff_t channels = epilogue.out_channels;
  for (int first = 0; first < row.width; first += step) {
    const int pixels = row.width - first < step ? row.width - first : step;
    const char* prefetch = nullptr;
    std::ptrdiff_t prefetch_bytes = 0;
    if (row.residual != nullptr) {
      prefetch = reinterpret_cast<const char*>(row.residual + first * channels);
      prefetch_bytes = pixels * channels * static_cast<std::ptrdiff_t>(sizeof(T));
    }
    choose(
        [&](auto affine) {
          assemble<decltype(affine)::value>(epilogue, row.rows, row.chunk, first, pixels, prefetch,
                                            prefetch_bytes);
        },
        epilogue.affine);
    finish_pixels(epilogue, row, first, pixels, row.chunk, channels);
  }
}

}  // namespace ghostsr::fused::GHOSTSR_SIMD_LEVEL
