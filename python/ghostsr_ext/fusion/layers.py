"""Turning the convolutions of a network into fused layers where they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

from ghostsr_ext.models.layers import has_hooks
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments

FusedLayer = FusedConv2d | GhostConv2d
"""The layers that take a residual and an activation."""

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def obstacle(layer: nn.Conv2d) -> str | None:
    """Return why a convolution cannot become a ``FusedConv2d``, or None where it can."""
    if parametrize.is_parametrized(layer) or layer._parameters.get("weight") is None:
        return "its weight is computed by a parametrization"
    if type(layer) is not nn.Conv2d:
        return f"its class {type(layer).__name__} may compute something else than a convolution"
    if has_hooks(layer):
        return "it has hooks"
    if "forward" in vars(layer):
        return "its forward was replaced"
    if layer.weight.dtype not in _DTYPES:
        return f"its weight is of type {layer.weight.dtype}"
    return None


def become_fused(layer: nn.Conv2d) -> None:
    """Turn a plain convolution into a ``FusedConv2d``, in its place.

    The object stays the same, so that lists and closures of the network that hold it hold the fused
    layer now, and whatever else was stored on it is still there.
    """
    template = FusedConv2d(
        layer.in_channels, layer.out_channels, **convolution_arguments(layer), device="meta"
    )
    for name, value in vars(template).items():
        vars(layer).setdefault(name, value)
    for name, parameter in template._parameters.items():
        if name not in layer._parameters:
            layer.register_parameter(name, parameter)
    layer.__class__ = FusedConv2d


def channels_last_weight(layer: FusedLayer) -> Callable[[], None]:
    """Store the filters of a layer on the CPU as its maps are; returns what undoes that."""
    weight, before = layer.weight, layer.weight.data

    def undo() -> None:
        weight.data = before

    if weight.device.type == "cpu":
        weight.data = before.contiguous(memory_format=torch.channels_last)
    return undo
