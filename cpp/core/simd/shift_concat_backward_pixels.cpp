#include "core/shift_concat.h"
#include "core/simd/block_sizes.h"
#include "core/simd/dispatch.h"
#include "core/simd/slopes.h"
#include "core/simd/vector.h"

// All channels of a pixel together: the path of channels_last maps. Rows of the gradient, as the activation
// lets it through, wait in the near caches, where each intrinsic channel takes the values of its readers one
// by one. Two loads in a cycle are faster than turning the rows into planes of pixels, and their sums back.

namespace ghostsr::GHOSTSR_SIMD_LEVEL {
namespace {

// Pixels whose sums are made at a time, so that a reader's place is looked up once for all of them.
constexpr int kPixels = 4;

// Some pixels of a row, [first, first + pixels).
struct Piece {
  int64_t n;
  int64_t y;
  int64_t first;
  int64_t pixels;
};

// The rows y - radius to y + radius around a piece, with `radius` more pixels on either side.
template <typename A>
struct LineBuffer {
  A* data;  // [2 * radius + 1][pitch]
  int64_t channels;
  int64_t radius;
  int64_t pitch;

  // Row y lies in slot y mod window; moving down one row replaces one slot.
  [[gnu::always_inline]] int64_t slot(int64_t y) const {
    const int64_t window = 2 * radius + 1;
    return (y % window + window) % window;
  }
};

// What the sums read of the readers, in the order of ShiftConcatBackwardParams::readers.
template <typename A>
struct Readers {
  int64_t* offsets;  // [2 * radius + 1][readers]: of a pixel's slot, from that pixel of slot 0
  A* gains;          // [readers], and so the others
  A* biases;
  A* slopes;
  int64_t count;
};

template <ActivationKind kActivation, typename T>
Readers<accumulator_t<T>> find_readers(const ShiftConcatBackwardParams<T>& params,
                                       const LineBuffer<accumulator_t<T>>& lines, accumulator_t<T>* numbers,
                                       int64_t* offsets) {
  using A = accumulator_t<T>;
  const int64_t count = params.reader_begin[params.intrinsic_channels];
  const Readers<A> readers{offsets, numbers, numbers + count, numbers + 2 * count, count};
  for (int64_t index = 0; index < count; ++index) {
    const int64_t reader = params.readers[index];
    const ChannelOrigin& origin = params.origins[reader];
    readers.gains[index] = static_cast<A>(origin.gain * params.residual_scale);
    readers.biases[index] = static_cast<A>(origin.bias * params.residual_scale);
    readers.slopes[index] = slope_of<kActivation, A>(params.activation, reader);
    for (int64_t slot = 0; slot <= 2 * lines.radius; ++slot) {
      readers.offsets[slot * count + index] =
          lines.slot(slot - origin.dy) * lines.pitch + (lines.radius - origin.dx) * lines.channels + reader;
    }
  }
  return readers;
}

template <typename A>
GHOSTSR_ALWAYS_INLINE void clear(A* values, int64_t count) {
  for (int64_t index = 0; index < count; ++index) {
    values[index] = A(0);
  }
}

// Writes what the activation saw of `channels` gradients, of one pixel, to `to`.
template <MaskSource kSource, ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE void undo_activation(const ShiftConcatBackwardParams<T>& params, const T* gradient,
                                           const T* output, int64_t channels, accumulator_t<T>* to) {
  using A = accumulator_t<T>;
  const int64_t whole = channels - channels % kGroup;
  for (int64_t c = 0; c < whole; c += kGroup) {
    Group<A> value = load<kGroup>(gradient + c);
    if constexpr (kSource == MaskSource::output) {
      value = activation_gradient<kActivation>(load<kGroup>(output + c), value,
                                               slopes_of<kActivation, A>(params.activation, c));
    }
    store<kGroup>(to + c, value);
  }
  for (int64_t c = whole; c < channels; ++c) {
    A value = A(gradient[c]);
    if constexpr (kSource == MaskSource::output) {
      value = activation_gradient<kActivation>(A(output[c]), value,
                                               slope_of<kActivation, A>(params.activation, c));
    }
    to[c] = value;
  }
}

// Fills the slot of row y, with zeros outside the map.
template <MaskSource kSource, ActivationKind kActivation, typename T>
GHOSTSR_ALWAYS_INLINE void fill_line(const ShiftConcatBackwardParams<T>& params,
                                     const LineBuffer<accumulator_t<T>>& lines, const Piece& piece,
                                     int64_t y) {
  const Strides& grad = params.grad_output_strides;
  const Strides& out = params.output_strides;
  const int64_t channels = lines.channels;
  const int64_t left = piece.first - lines.radius;
  const int64_t wanted = piece.pixels + 2 * lines.radius;
  const int64_t most = params.extent.width - left;
  const bool inside = y >= 0 && y < params.extent.height;
  const int64_t begin = left < 0 ? -left : 0;
  const int64_t end = !inside ? begin : most < wanted ? most : wanted;
  accumulator_t<T>* line = lines.data + lines.slot(y) * lines.pitch;
  clear(line, begin * channels);
  const T* gradient = params.grad_output + piece.n * grad.batch + (inside ? y * grad.y : 0);
  const T* output = kSource == MaskSource::output
                        ? params.output + piece.n * out.batch + (inside ? y * out.y : 0)
                        : nullptr;
  for (int64_t x = begin; x < end; ++x) {
    undo_activation<kSource, kActivation>(
        params, gradient + (left + x) * grad.x,
        kSource == MaskSource::output ? output + (left + x) * out.x : nullptr, channels, line + x * channels);
  }
  clear(line + end * channels, (wanted - end) * channels);
}

// Keeps a row of what the activation saw, from its slot.
template <typename T>
GHOSTSR_ALWAYS_INLINE void keep_line(const ShiftConcatBackwardParams<T>& params,
                                     const LineBuffer<accumulator_t<T>>& lines, const Piece& piece) {
  const Strides& to = params.grad_residual_strides;
  const accumulator_t<T>* line =
      lines.data + lines.slot(piece.y) * lines.pitch + lines.radius * lines.channels;
  T* row = params.grad_residual + piece.n * to.batch + piece.y * to.y + piece.first * to.x;
  const int64_t whole = lines.channels - lines.channels % kGroup;
  for (int64_t x = 0; x < piece.pixels; ++x) {
    for (int64_t c = 0; c < whole; c += kGroup) {
      store<kGroup>(row + x * to.x + c, load<kGroup>(line + x * lines.channels + c));
    }
    for (int64_t c = whole; c < lines.channels; ++c) {
      row[x * to.x + c] = T(line[x * lines.channels + c]);
    }
  }
}

// Sums the readers of each intrinsic channel at `pixels` neighbouring pixels. A reader's gradient that
// belongs to a pixel saw the intrinsic value of that pixel, whatever its shift. `line` is the first pixel in
// slot 0, `seen` its intrinsic values.
template <int pixels, MaskSource kSource, ActivationKind kActivation, bool kScaled, typename T>
GHOSTSR_ALWAYS_INLINE void sum_readers(const ShiftConcatBackwardParams<T>& params,
                                       const Readers<accumulator_t<T>>& readers, const int64_t* offsets,
                                       const accumulator_t<T>* line, const T* seen, T* to) {
  using A = accumulator_t<T>;
  const int64_t step = readers.count;
  int64_t index = 0;
  for (int64_t channel = 0; channel < params.intrinsic_channels; ++channel) {
    const int64_t end = params.reader_begin[channel + 1];
    const auto read = [&](int pixel) __attribute__((always_inline)) {
      A value = line[pixel * step + offsets[index]];
      if constexpr (kScaled) {
        value *= readers.gains[index];
      }
      if constexpr (kSource == MaskSource::intrinsic) {
        const A saw = A(seen[pixel * params.intrinsic_strides.x + channel]) * readers.gains[index] +
                      readers.biases[index];
        value = activation_gradient<kActivation>(saw, value, readers.slopes[index]);
      }
      return value;
    };
    A sums[pixels];
    for (int pixel = 0; pixel < pixels; ++pixel) {
      sums[pixel] = read(pixel);
    }
    for (++index; index < end; ++index) {
      for (int pixel = 0; pixel < pixels; ++pixel) {
        sums[pixel] += read(pixel);
      }
    }
    for (int pixel = 0; pixel < pixels; ++pixel) {
      to[pixel * params.grad_intrinsic_strides.x + channel] = T(sums[pixel]);
    }
  }
}

template <MaskSource kSource, ActivationKind kActivation, bool kScaled, typename T>
void backward_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
                   accumulator_t<T>* workspace, int64_t* offsets) {
  using A = accumulator_t<T>;
  const int64_t radius = params.radius;
  const int64_t height = params.extent.height;
  const int64_t width = params.extent.width;
  const Strides& in = params.intrinsic_strides;
  const Strides& to = params.grad_intrinsic_strides;
  const int64_t channels = params.reader_begin[params.intrinsic_channels];
  const LineBuffer<A> lines{workspace, channels, radius, (kPlanePixels + 2 * radius) * channels};
  const Readers<A> readers =
      find_readers<kActivation>(params, lines, workspace + (2 * radius + 1) * lines.pitch, offsets);
  for (int64_t first = 0; first < width; first += kPlanePixels) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t left = width - first;
      const Piece piece{row / height, row % height, first, left < kPlanePixels ? left : kPlanePixels};
      const bool fresh = row == begin || piece.y == 0;
      for (int64_t dy = fresh ? -radius : radius; dy <= radius; ++dy) {
        fill_line<kSource, kActivation>(params, lines, piece, piece.y + dy);
      }
      if (params.grad_residual != nullptr) {
        keep_line(params, lines, piece);
      }
      const int64_t* places = readers.offsets + lines.slot(piece.y) * readers.count;
      const T* seen = kSource == MaskSource::intrinsic
                          ? params.intrinsic + piece.n * in.batch + piece.y * in.y + first * in.x
                          : nullptr;
      T* result = params.grad_intrinsic + piece.n * to.batch + piece.y * to.y + first * to.x;
      const auto sum = [&](auto count, int64_t x) __attribute__((always_inline)) {
        sum_readers<decltype(count)::value, kSource, kActivation, kScaled>(
            params, readers, places, lines.data + x * channels,
            kSource == MaskSource::intrinsic ? seen + x * in.x : nullptr, result + x * to.x);
      };
      int64_t x = 0;
      for (; x + kPixels <= piece.pixels; x += kPixels) {
        sum(Constant<kPixels>(), x);
      }
      for (; x < piece.pixels; ++x) {
        sum(Constant<1>(), x);
      }
    }
  }
}

// Whether every output channel is the intrinsic one of its number, as in a dense layer.
template <typename T>
bool is_dense(const ShiftConcatBackwardParams<T>& params) {
  bool dense = params.reader_begin[params.intrinsic_channels] == params.intrinsic_channels;
  for (int64_t channel = 0; dense && channel < params.intrinsic_channels; ++channel) {
    dense = params.origins[channel].source == channel;
  }
  return dense;
}

// Whether a reader's gradient is changed before it is added.
template <typename T>
bool is_scaled(const ShiftConcatBackwardParams<T>& params) {
  bool scaled = params.residual_scale != 1;
  for (int64_t reader = 0; reader < params.reader_begin[params.intrinsic_channels]; ++reader) {
    scaled = scaled || params.origins[reader].gain != 1;
  }
  return scaled;
}

template <MaskSource kSource, ActivationKind kActivation, typename T>
void backward_dense_rows(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end) {
  using A = accumulator_t<T>;
  const A scale = static_cast<A>(params.residual_scale);
  // What the activation saw has the output's sign, or is the intrinsic value times residual_scale.
  const A sign_scale = kSource == MaskSource::output ? A(1) : scale;
  const Strides& grad = params.grad_output_strides;
  const Strides& to = params.grad_intrinsic_strides;
  const Strides& kept = params.grad_residual_strides;
  const T* signs = kSource == MaskSource::output ? params.output : params.intrinsic;
  const Strides& seen = kSource == MaskSource::output ? params.output_strides : params.intrinsic_strides;
  const int64_t whole = params.intrinsic_channels - params.intrinsic_channels % kGroup;
  const bool keeps = params.grad_residual != nullptr;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t n = index / params.extent.height;
    const int64_t y = index % params.extent.height;
    for (int64_t x = 0; x < params.extent.width; ++x) {
      const T* gradient = params.grad_output + n * grad.batch + y * grad.y + x * grad.x;
      const T* sign =
          kSource == MaskSource::none ? nullptr : signs + n * seen.batch + y * seen.y + x * seen.x;
      T* result = params.grad_intrinsic + n * to.batch + y * to.y + x * to.x;
      T* residual = keeps ? params.grad_residual + n * kept.batch + y * kept.y + x * kept.x : nullptr;
      for (int64_t channel = 0; channel < whole; channel += kGroup) {
        Group<A> value = load<kGroup>(gradient + channel);
        if constexpr (kSource != MaskSource::none) {
          value = activation_gradient<kActivation>(load<kGroup>(sign + channel) * sign_scale, value,
                                                   slopes_of<kActivation, A>(params.activation, channel));
        }
        if (keeps) {
          store<kGroup>(residual + channel, value);
        }
        store<kGroup>(result + channel, value * scale);
      }
      for (int64_t channel = whole; channel < params.intrinsic_channels; ++channel) {
        A value = A(gradient[channel]);
        if constexpr (kSource != MaskSource::none) {
          value = activation_gradient<kActivation>(A(sign[channel]) * sign_scale, value,
                                                   slope_of<kActivation, A>(params.activation, channel));
        }
        if (keeps) {
          residual[channel] = T(value);
        }
        result[channel] = T(value * scale);
      }
    }
  }
}

}  // namespace

template <typename T>
void shift_concat_backward_pixels(const ShiftConcatBackwardParams<T>& params, int64_t begin, int64_t end,
                                  accumulator_t<T>* workspace, int64_t* offsets) {
  choose_mask(
      [&](auto source, auto kind) {
        constexpr MaskSource kSource = decltype(source)::value;
        constexpr ActivationKind kActivation = decltype(kind)::value;
        if (is_dense(params)) {
          backward_dense_rows<kSource, kActivation>(params, begin, end);
        } else if (is_scaled(params)) {
          backward_rows<kSource, kActivation, true>(params, begin, end, workspace, offsets);
        } else {
          backward_rows<kSource, kActivation, false>(params, begin, end, workspace, offsets);
        }
      },
      params.mask_source, params.activation.kind);
}

template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<float>&, int64_t, int64_t, float*,
                                           int64_t*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<double>&, int64_t, int64_t,
                                           double*, int64_t*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<Float16>&, int64_t, int64_t,
                                           float*, int64_t*);
template void shift_concat_backward_pixels(const ShiftConcatBackwardParams<BFloat16>&, int64_t, int64_t,
                                           float*, int64_t*);

}  // namespace ghostsr::GHOSTSR_SIMD_LEVEL
