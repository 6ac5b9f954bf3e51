"""Sizes and layouts of the maps that the operators return, without computing them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def prefers_channels_last(tensor: Tensor) -> bool:
    """Whether the strides of a map [N, C, H, W] say channels_last, by torch's own rule."""
    stride = tensor.stride()
    if stride[1] == 0:
        return False
    least = 0
    for axis in (1, 3, 2, 0):
        size = tensor.shape[axis]
        if size == 0 or stride[axis] < least or (axis == 0 and least == stride[1]):
            return False
        least = stride[axis] * (size if size > 1 else 1)
    return True


def layout_of(*tensors: Tensor) -> torch.memory_format:
    """Return channels_last if any of the maps prefers it, else the contiguous format."""
    if any(prefers_channels_last(tensor) for tensor in tensors):
        return torch.channels_last
    return torch.contiguous_format


def empty_map(like: Tensor, size: Sequence[int], memory_format: torch.memory_format) -> Tensor:
    """Return a map of the dtype and on the device of ``like``, not initialised."""
    return torch.empty(
        tuple(size), dtype=like.dtype, device=like.device, memory_format=memory_format
    )


def convolved_size(
    input: Tensor,
    weight: Tensor,
    channels: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Return [N, channels, H', W'] of a convolution's output."""
    return [
        input.shape[0],
        channels,
        *(
            (
                input.shape[axis + 2]
                + 2 * padding[axis]
                - dilation[axis] * (weight.shape[axis + 2] - 1)
                - 1
            )
            // stride[axis]
            + 1
            for axis in range(2)
        ),
    ]


def empty_convolved(
    input: Tensor,
    weight: Tensor,
    channels: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Return a map for a convolution's output, in the layout that the operators choose."""
    size = convolved_size(input, weight, channels, stride, padding, dilation)
    return empty_map(input, size, layout_of(input, weight))
