"""Which layers a forward pass calls, how often and at which sizes, without computing it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.nn import GhostConv2d

LAYER_TYPES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, GhostConv2d)
"""Dense convolutions (``FusedConv2d`` among them), linear layers and ghost convolutions."""


@dataclass(frozen=True)
class LayerCall:
    """One call of one layer.

    Attributes:
        name: The layer's name in the network.
        module: The layer: the network's own module, not a copy.
        input_shape: Shape of its first input.
        output_shape: Shape of its output.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def trace_calls(
    model: nn.Module, input_shape: tuple[int, ...], arguments: Mapping[str, Any] | None = None
) -> list[LayerCall]:
    """Run ``model`` on shapes alone and list the calls of its layers in their order.

    A copy of the network without memory (on torch's meta device) is run, so neither the size of the
    network nor that of the input costs anything, and the network itself is not touched.

    Args:
        model: Any network.
        input_shape: Shape of its input.
        arguments: Keyword arguments of its ``forward``.

    Returns:
        One entry a call; a layer that is called three times is listed three times.
    """
    shadow = _meta_copy(model)
    originals = dict(model.named_modules())
    calls: list[LayerCall] = []

    def record(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls.append(
                LayerCall(name, originals[name], tuple(inputs[0].shape), tuple(output.shape))
            )

        return hook

    for name, module in shadow.named_modules():
        if isinstance(module, LAYER_TYPES):
            module.register_forward_hook(record(name))
    dtype = next((p.dtype for p in shadow.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad():
        shadow(torch.empty(input_shape, dtype=dtype, device="meta"), **(arguments or {}))
    return calls


def influence_radius(
    model: nn.Module, channels: int, arguments: Mapping[str, Any] | None = None
) -> Fraction:
    """Return how far an output pixel of ``model`` looks, in pixels of the input.

    Each convolution call adds half its dilated kernel and the largest shift of a ghost layer, in
    pixels of the map it reads. For networks whose convolutions all lie on one path (EDSR, RDN,
    CARN, VDSR) this is exact; where convolutions run side by side it is an upper bound.

    Args:
        model: A fully convolutional network of stride-1 convolutions.
        channels: Channels of its input.
        arguments: Keyword arguments of its ``forward``.
    """
    side = 48
    radius = Fraction(0)
    for call in trace_calls(model, (1, channels, side, side), arguments):
        module = call.module
        if not isinstance(module, nn.Conv2d | GhostConv2d):
            continue
        kernel = max(
            (size - 1) * dilation
            for size, dilation in zip(module.kernel_size, module.dilation, strict=True)
        )
        shift = module.max_shift if isinstance(module, GhostConv2d) else 0
        reach = Fraction(kernel, 2) + shift
        radius += reach * Fraction(side, call.input_shape[-1])
    return radius


def _meta_copy(model: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {}
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    for tensor in tensors:
        shadow = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = (
            nn.Parameter(shadow, requires_grad=False)
            if isinstance(tensor, nn.Parameter)
            else shadow
        )
    return copy.deepcopy(model, memo).eval()
