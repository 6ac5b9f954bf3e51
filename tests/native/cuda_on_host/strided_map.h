// Maps [batch, channel, y, x] of any strides and alignment, that know when a kernel strays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "core/geometry.h"
#include "core/half.h"
#include "host/machine.h"

namespace ghostsr::cuda_test {

template <typename T>
double to_double(T value) {
  return static_cast<double>(static_cast<accumulator_t<T>>(value));
}
template <typename T>
T from_double(double value) {
  return T(static_cast<accumulator_t<T>>(value));
}

enum class Layout {
  contiguous,
  channels_last,
  // Rows, and pixels of a channels_last map, with a gap after each; the map begins off any 16-byte boundary.
  spaced_rows,
  spaced_pixels,
  // Every second pixel of a wider map.
  every_second,
};

struct Size {
  int64_t batch;
  int64_t channels;
  int64_t height;
  int64_t width;

  int64_t elements() const { return batch * channels * height * width; }
};

template <typename T>
class StridedMap {
 public:
  StridedMap(const Size& size, Layout layout, int64_t misalignment = 0) : size_(size) {
    const auto [batch, channels, height, width] = size;
    switch (layout) {
      case Layout::contiguous:
        strides_ = {channels * height * width, height * width, width, 1};
        break;
      case Layout::channels_last:
        strides_ = {channels * height * width, 1, width * channels, channels};
        break;
      case Layout::spaced_rows:
        strides_ = {channels * height * (width + 3) + 5, height * (width + 3), width + 3, 1};
        break;
      case Layout::spaced_pixels:
        strides_ = {height * width * (channels + 8), 1, width * (channels + 8), channels + 8};
        break;
      case Layout::every_second:
        strides_ = {channels * height * width * 2, height * width * 2, width * 2, 2};
        break;
    }
    span_ = size.elements() == 0 ? 0
                                 : (batch - 1) * strides_.batch + (channels - 1) * strides_.channel +
                                       (height - 1) * strides_.y + (width - 1) * strides_.x + 1;
    // Exactly as much memory as the map spans, so that an address sanitizer sees the first step outside.
    void* memory = nullptr;
    if (posix_memalign(&memory, kBoundary, (misalignment + span_) * sizeof(T) + 1) != 0) {
      throw std::bad_alloc();
    }
    memory_.reset(static_cast<T*>(memory));
    begin_ = misalignment;
    std::fill_n(memory_.get(), begin_ + span_, from_double<T>(std::numeric_limits<double>::quiet_NaN()));
  }

  const Size& size() const { return size_; }
  const Strides& strides() const { return strides_; }
  Extent extent() const { return {size_.batch, size_.height, size_.width}; }
  T* data() { return memory_.get() + begin_; }
  const T* data() const { return memory_.get() + begin_; }
  host_cuda::Loan lend_for_reading() const { return {data(), span_bytes(), false}; }
  host_cuda::Loan lend_for_writing() { return {data(), span_bytes(), true}; }
  size_t span_bytes() const { return span_ * sizeof(T); }

  T& at(int64_t n, int64_t c, int64_t y, int64_t x) { return data()[offset(n, c, y, x)]; }
  const T& at(int64_t n, int64_t c, int64_t y, int64_t x) const { return data()[offset(n, c, y, x)]; }
  int64_t offset(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return n * strides_.batch + c * strides_.channel + y * strides_.y + x * strides_.x;
  }

  // Calls visit(n, c, y, x) for every element.
  template <typename Visit>
  void each(const Visit& visit) const {
    for (int64_t n = 0; n < size_.batch; ++n) {
      for (int64_t c = 0; c < size_.channels; ++c) {
        for (int64_t y = 0; y < size_.height; ++y) {
          for (int64_t x = 0; x < size_.width; ++x) {
            visit(n, c, y, x);
          }
        }
      }
    }
  }

 private:
  static constexpr size_t kBoundary = 64;

  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };

  Size size_;
  Strides strides_;
  int64_t span_ = 0;
  int64_t begin_ = 0;
  std::unique_ptr<T, Free> memory_;
};

// A map filled with `values`, in the order of each().
template <typename T>
StridedMap<T> filled_map(const Size& size, Layout layout, int64_t misalignment,
                         const std::vector<double>& values) {
  StridedMap<T> map(size, layout, misalignment);
  size_t index = 0;
  map.each([&](int64_t n, int64_t c, int64_t y, int64_t x) {
    map.at(n, c, y, x) = from_double<T>(values[index++]);
  });
  return map;
}

}  // namespace ghostsr::cuda_test
