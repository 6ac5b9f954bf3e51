"""Shapes, dtypes and layouts of the operators' results, without computing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _memory_format(*tensors: Tensor) -> torch.memory_format:
    """Return channels_last when any of the tensors is so and not contiguous: the rule of the native kernels."""
    for tensor in tensors:
        if not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
            return torch.channels_last
    return torch.contiguous_format


def _convolved_size(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    return [
        (input.shape[axis + 2] + 2 * padding[axis] - dilation[axis] * (weight.shape[axis + 2] - 1) - 1)
        // stride[axis]
        + 1
        for axis in range(2)
    ]


def _empty_convolved(
    input: Tensor,
    weight: Tensor,
    channels: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    size = [input.shape[0], channels, *_convolved_size(input, weight, stride, padding, dilation)]
    return input.new_empty(size).to(memory_format=_memory_format(input, weight))


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return _empty_convolved(input, weight, weight.shape[0], stride, padding, dilation)


def _ghost_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    shift: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    **_: Any,
) -> Tensor:
    channels = weight.shape[0] + source.shape[0]
    return _empty_convolved(input, weight, channels, stride, padding, dilation)


def _ghost_conv_learned(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Tensor,
    logits: Tensor,
    noise: Tensor | None,
    tau: float,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    **_: Any,
) -> Tensor:
    channels = weight.shape[0] + source.shape[0]
    return _empty_convolved(input, weight, channels, stride, padding, dilation)


def _shift_concat(intrinsic: Tensor, source: Tensor, shift: Tensor, **_: Any) -> Tensor:
    batch, channels, height, width = intrinsic.shape
    size = (batch, channels + source.shape[0], height, width)
    return intrinsic.new_empty(size).to(memory_format=_memory_format(intrinsic))


def _shift_concat_backward(
    grad_output: Tensor,
    source: Tensor,
    shift: Tensor,
    *,
    output_mask: Sequence[bool],
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, height, width = grad_output.shape
    ghosts = source.shape[0]
    grad_intrinsic = (
        grad_output.new_empty((batch, channels - ghosts, height, width)).to(
            memory_format=_memory_format(grad_output)
        )
        if output_mask[0]
        else grad_output.new_empty(0)
    )
    grad_gain = grad_output.new_empty(ghosts if output_mask[1] else 0)
    grad_ghost_bias = grad_output.new_empty(ghosts if output_mask[2] else 0)
    return grad_intrinsic, grad_gain, grad_ghost_bias


def _select_shift(logits: Tensor, noise: Tensor | None, tau: float, ghosts: int) -> Tensor:
    return logits.new_empty((ghosts, 2), dtype=torch.int64)


def _shift_selection_backward(
    grad_output: Tensor,
    intrinsic: Tensor,
    source: Tensor,
    logits: Tensor,
    noise: Tensor | None,
    tau: float,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    scores = logits.new_empty((source.shape[0], logits.shape[1]))
    return scores, torch.empty_like(logits, memory_format=torch.contiguous_format)


def register() -> None:
    """Register the fake kernels of all operators."""
    for name, kernel in {
        "convolution": _convolution,
        "ghost_conv": _ghost_conv,
        "ghost_conv_learned": _ghost_conv_learned,
        "shift_concat": _shift_concat,
        "shift_concat_backward": _shift_concat_backward,
        "select_shift": _select_shift,
        "shift_selection_backward": _shift_selection_backward,
    }.items():
        torch.library.register_fake(f"ghostsr::{name}", kernel)
