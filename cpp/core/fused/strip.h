// One strip of tile rows, from the input to the output.
#pragma once

#include <concepts>
#include <cstdint>

#include "core/fused/blocking.h"
#include "core/fused/convolution.h"
#include "core/fused/stages.h"

namespace ghostsr::fused {

// All that the workers of one call share.
template <class T>
struct ConvolutionCall {
  const ArgumentsOf<T>* arguments;
  const Stages* stages;
  Blocking blocking;
  WorkspaceLayout layout;
  Epilogue epilogue;
  float* workspace;
};

// Runs strips on one worker's part of the workspace. T is float or BFloat16.
template <class T>
class StripRunner {
 public:
  StripRunner(const ConvolutionCall<T>& call, int worker);

  // Strips are counted from the top of the first picture to the bottom of the last.
  void run(std::int64_t strip);

 private:
  struct Strip;

  void run_band(Strip& strip, int first_tile_row, int end_tile_row);
  void run_block(const TileRun& tiles);
  void run_tiles(const TileRun& tiles, int group)
    requires std::same_as<T, float>;
  void run_pixels(const TileRun& pixels, int group)
    requires std::same_as<T, float>;
  void read_row(std::int64_t row)
    requires std::same_as<T, BFloat16>;
  void run_row(int y, int group)
    requires std::same_as<T, BFloat16>;
  InputMapOf<T> group_input(int group) const;
  ChannelRange group_channels(int group) const;
  const T* group_weight(int group) const;
  T* input_row(int group, std::int64_t row) const;
  void save_rows(std::int64_t boundary, int boundary_y, int first, int end);
  void arrive(std::int64_t boundary, std::int64_t picture, int boundary_y);
  void finish_boundary(std::int64_t boundary, std::int64_t picture, int boundary_y);
  template <class RowAt>
  void finish_row(std::int64_t picture, int y, RowAt row_at);

  const ConvolutionCall<T>& call_;
  const Blocking& blocking_;
  int out_height_;
  int out_width_;
  float* worker_;
  LineBuffer lines_;
  InputMapOf<T> input_{};
  std::int64_t next_input_row_ = 0;  // to read, of bfloat16; counted from the padding's first
};

}  // namespace ghostsr::fused
