"""Shapes, dtypes and layouts of the operators' results, without computing them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

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


def _memory_format(*tensors: Tensor) -> torch.memory_format:
    if any(prefers_channels_last(tensor) for tensor in tensors):
        return torch.channels_last
    return torch.contiguous_format


def _empty_map(like: Tensor, size: Sequence[int], memory_format: torch.memory_format) -> Tensor:
    return torch.empty(
        tuple(size), dtype=like.dtype, device=like.device, memory_format=memory_format
    )


def _convolved_size(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    return [
        (
            input.shape[axis + 2]
            + 2 * padding[axis]
            - dilation[axis] * (weight.shape[axis + 2] - 1)
            - 1
        )
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
    return _empty_map(input, size, _memory_format(input, weight))


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


def _convolution_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    memory_format = _memory_format(input, weight)
    grad_input = _empty_map(input, input.shape, memory_format)
    grad_weight = _empty_map(weight, weight.shape, memory_format)
    grad_bias = weight.new_empty(weight.shape[0])
    wanted = zip((grad_input, grad_weight, grad_bias), output_mask, strict=True)
    first, second, third = (gradient if want else input.new_empty(0) for gradient, want in wanted)
    return first, second, third


def _pack_weight(weight: Tensor, groups: int = 1) -> Tensor:
    # A float, or 36 of a 3x3 weight, for each filter and input channel, the filters of a group by
    # eights, and a fingerprint of eight bytes.
    components = 1 if weight.shape[2] == 1 else 36
    padded = groups * ((weight.shape[0] // groups + 7) // 8 * 8)
    return weight.new_empty(components * weight.shape[1] * padded + 2)


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
    return _empty_map(intrinsic, size, _memory_format(intrinsic))


def _shift_concat_backward(
    grad_output: Tensor,
    source: Tensor,
    shift: Tensor,
    *,
    output_mask: Sequence[bool] = (True, True, True),
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, height, width = grad_output.shape
    ghosts = source.shape[0]
    grad_intrinsic = (
        _empty_map(
            grad_output, (batch, channels - ghosts, height, width), _memory_format(grad_output)
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


def _on_one_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse tensors of several devices: a meta tensor among others ends up here."""

    @functools.wraps(kernel)
    def checked(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.device != first.device:
                raise RuntimeError(
                    f"ghostsr: found tensors on {first.device} and on {value.device}; "
                    "one device is needed"
                )
        return kernel(first, *args, **kwargs)

    return checked


def register() -> None:
    """Register the fake kernels of all operators."""
    kernels: dict[str, Callable[..., Any]] = {
        "convolution": _convolution,
        "convolution_backward": _convolution_backward,
        "pack_weight": _pack_weight,
        "ghost_conv": _ghost_conv,
        "ghost_conv_learned": _ghost_conv_learned,
        "shift_concat": _shift_concat,
        "shift_concat_backward": _shift_concat_backward,
        "select_shift": _select_shift,
        "shift_selection_backward": _shift_selection_backward,
    }
    for name, kernel in kernels.items():
        torch.library.register_fake(f"ghostsr::{name}", _on_one_device(kernel))
