"""Which way the CPU computes each layer of a network, and the memory that this takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.models.layer_calls import layer_calls
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.ops import packed_weight_bytes

ConvolutionPath = Literal["winograd", "pointwise", "torch"]


@dataclass(frozen=True)
class LayerPath:
    """How the CPU computes a layer in float32, without gradients.

    Attributes:
        name: The layer's name in the network.
        path: ``"winograd"`` for the package's fused 3x3 kernel, ``"pointwise"`` for its fused 1x1
            kernel, ``"torch"`` for torch's convolution and what follows it in a second pass.
        packed_bytes: Memory of the packed weight, which the layer keeps from its first run
            with fixed shifts; 0 on torch's path.
    """

    name: str
    path: ConvolutionPath
    packed_bytes: int


def convolution_paths(
    model: SRModel, hr_size: tuple[int, int] = (720, 1280), *, scale: int | None = None
) -> tuple[LayerPath, ...]:
    """Return the path of each layer that the network uses, in the order of their first use.

    Nothing is computed. A forced path (:func:`ghostsr_ext.ops.convolution_path`) counts as it does
    when the network runs. A layer that runs at several sizes is on the package's own path if any
    of them is.

    Args:
        model: The network.
        hr_size: Height and width of the enlarged picture.
        scale: One of the network's scales; None for ``model.scale``.

    Raises:
        InputError: A size or the scale is out of its domain.
    """
    if len(hr_size) != 2 or any(not isinstance(size, int) or size < 1 for size in hr_size):
        raise InputError(f"hr_size: got {hr_size!r}, allowed are a height and a width from 1")
    scale = model.served_scale(scale)
    enlargement = 1 if model.input_upscaled else scale
    height, width = (math.ceil(size / enlargement) for size in hr_size)
    paths: dict[str, LayerPath] = {}
    for call in layer_calls(model, (1, model.channels, height, width), {"scale": scale}):
        packed_bytes = _packed_bytes(call.module, call.input_shape)
        if call.name not in paths or packed_bytes:
            paths[call.name] = LayerPath(call.name, _path(call.module, packed_bytes), packed_bytes)
    return tuple(paths.values())


def _path(layer: nn.Module, packed_bytes: int) -> ConvolutionPath:
    if packed_bytes == 0:
        return "torch"
    assert isinstance(layer.weight, torch.Tensor)
    return "pointwise" if layer.weight.shape[2] == 1 else "winograd"


def _packed_bytes(layer: nn.Module, input_shape: tuple[int, ...]) -> int:
    if not isinstance(layer, FusedConv2d | GhostConv2d):
        return 0
    batch, channels, height, width = input_shape
    assert isinstance(layer.weight, torch.Tensor)
    padding: str | tuple[int, ...] = layer.padding
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        # Right for kernels without dilation; others never take another path than torch's.
        padding = tuple((side - 1) // 2 for side in layer.weight.shape[2:])
    if layer.padding_mode != "zeros":
        height, width = height + 2 * int(padding[0]), width + 2 * int(padding[1])
        padding = (0, 0)
    assert isinstance(padding, tuple)
    return packed_weight_bytes(
        torch.empty((batch, channels, height, width), memory_format=torch.channels_last),
        torch.empty(layer.weight.shape, memory_format=torch.channels_last),
        layer.stride,
        padding,
        layer.dilation,
        layer.groups,
        layer.ghost_channels if isinstance(layer, GhostConv2d) else 0,
    )
