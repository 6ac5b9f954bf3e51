#include <torch/csrc/stable/library.h>

// Tables are integer tensors on the input's device: source [G], shift [G, 2] as (dy, dx), order [C_out].
STABLE_TORCH_LIBRARY(ghostsr, library) {
  library.def(
      "convolution(Tensor input, Tensor weight, Tensor? bias, "
      "int[2] stride, int[2] padding, int[2] dilation, int groups, *, Tensor? cache=None) -> Tensor");
  library.def(
      "convolution_backward(Tensor grad_output, Tensor input, Tensor weight, "
      "int[2] stride, int[2] padding, int[2] dilation, int groups, bool[3] output_mask) "
      "-> (Tensor, Tensor, Tensor)");
  library.def("layer_cache() -> Tensor");
  library.def("release_memory() -> int");
  library.def("empty_map(Tensor like, SymInt channels) -> Tensor");
  library.def("cached_bytes(Tensor cache) -> int");
  library.def("choose_convolution_path(str path) -> str");
  library.def(
      "packed_weight_bytes(Tensor input, Tensor weight, int[2] stride, int[2] padding, int[2] dilation, int groups, "
      "int ghosts) -> int");
  library.def(
      "ghost_conv(Tensor input, Tensor weight, Tensor? bias, Tensor source, Tensor shift, *, "
      "Tensor? gain=None, Tensor? ghost_bias=None, Tensor? order=None, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str activation=\"none\", float negative_slope=0.01, Tensor? prelu_weight=None, "
      "Tensor? residual=None, float residual_scale=1.0, int shuffle=1, Tensor? cache=None, "
      "bool learning=False) -> Tensor");
  library.def(
      "ghost_conv.out(Tensor input, Tensor weight, Tensor? bias, Tensor source, Tensor shift, *, "
      "Tensor? gain=None, Tensor? ghost_bias=None, Tensor? order=None, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str activation=\"none\", float negative_slope=0.01, Tensor? prelu_weight=None, "
      "Tensor? residual=None, float residual_scale=1.0, int shuffle=1, Tensor? cache=None, "
      "bool learning=False, Tensor(a!) out) -> ()");
  library.def(
      "ghost_conv_backward(Tensor grad_output, Tensor? input, Tensor? weight, Tensor source, Tensor shift, *, "
      "Tensor? gain=None, Tensor? order=None, Tensor? output=None, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str activation=\"none\", float negative_slope=0.01, float residual_scale=1.0, int shuffle=1, "
      "bool[5] output_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "ghost_conv_learned(Tensor input, Tensor weight, Tensor? bias, Tensor source, "
      "Tensor logits, Tensor? noise, float tau, *, "
      "Tensor? gain=None, Tensor? ghost_bias=None, Tensor? order=None, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str activation=\"none\", float negative_slope=0.01, Tensor? prelu_weight=None, "
      "Tensor? residual=None, float residual_scale=1.0, Tensor? cache=None) -> Tensor");
  library.def(
      "shift_concat(Tensor intrinsic, Tensor source, Tensor shift, *, "
      "Tensor? gain=None, Tensor? ghost_bias=None, Tensor? order=None, "
      "str activation=\"none\", float negative_slope=0.01, Tensor? prelu_weight=None, "
      "Tensor? residual=None, float residual_scale=1.0) -> Tensor");
  library.def(
      "shift_concat_backward(Tensor grad_output, Tensor source, Tensor shift, *, "
      "Tensor? gain=None, Tensor? ghost_bias=None, Tensor? order=None, "
      "Tensor? intrinsic=None, Tensor? output=None, "
      "str activation=\"none\", float negative_slope=0.01, float residual_scale=1.0, "
      "bool[3] output_mask=[True, True, True]) -> (Tensor, Tensor, Tensor)");
  library.def("select_shift(Tensor logits, Tensor? noise, float tau, SymInt ghosts) -> Tensor");
  library.def(
      "shift_selection_backward(Tensor grad_output, Tensor intrinsic, Tensor source, "
      "Tensor logits, Tensor? noise, float tau, *, "
      "Tensor? gain=None, Tensor? ghost_bias=None, Tensor? order=None, Tensor? output=None, "
      "str activation=\"none\", float negative_slope=0.01, float residual_scale=1.0) -> (Tensor, Tensor)");
}
