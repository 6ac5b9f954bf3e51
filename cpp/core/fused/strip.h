// One strip of tile rows, from the input to the output.
#pragma once

#include <cstdint>

#include "core/fused/blocking.h"
#include "core/fused/convolution.h"
#include "core/fused/stages.h"

namespace ghostsr::fused {

// All that the workers of one call share.
struct ConvolutionCall {
  const Arguments* arguments;
  const Stages* stages;
  Blocking blocking;
  WorkspaceLayout layout;
  Epilogue epilogue;
  float* workspace;
};

// Runs strips on one worker's part of the workspace.
class StripRunner {
 public:
  StripRunner(const ConvolutionCall& call, int worker);

  // Strips are counted from the top of the first picture to the bottom of the last.
  void run(std::int64_t strip);

 private:
  struct Strip;

  void run_band(Strip& strip, int first_tile_row, int end_tile_row);
  void run_block(const TileRun& tiles);
  void run_tiles(const TileRun& tiles, int group);
  void run_pixels(const TileRun& pixels, int group);
  InputMap group_input(int group) const;
  ChannelRange group_channels(int group) const;
  const float* group_weight(int group) const;
  void save_rows(std::int64_t boundary, int boundary_y, int first, int end);
  void arrive(std::int64_t boundary, std::int64_t picture, int boundary_y);
  void finish_boundary(std::int64_t boundary, std::int64_t picture, int boundary_y);
  template <class RowAt>
  void finish_row(std::int64_t picture, int y, RowAt row_at);

  const ConvolutionCall& call_;
  const Blocking& blocking_;
  int out_height_;
  int out_width_;
  float* worker_;
  LineBuffer lines_;
  InputMap input_{};
};

}  // namespace ghostsr::fused
