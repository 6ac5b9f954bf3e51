"""Which layers a forward pass calls, how often and at which sizes, without computing it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    model: nn.Module,
    input_shape: tuple[int, ...],
    arguments: Mapping[str, Any] | None = None,
    *,
    reduced: bool = False,
) -> list[LayerCall]:
    """Run a copy of ``model`` and list the calls of its layers in their order.

    The network itself is not touched. By default its copy lives on torch's meta device, so neither
    the size of the network nor that of the input costs anything.

    Args:
        model: Any network.
        input_shape: Shape of its input.
        arguments: Keyword arguments of its ``forward``.
        reduced: Whether to run on the network's own device, with each convolution reduced to one
            channel. For tiny inputs this is faster than the meta device, whose first use loads
            torch's compiler.

    Returns:
        One entry a call; a layer that is called three times is listed three times.
    """
    shadow = _shadow(model, on_meta=not reduced)
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
            if reduced and isinstance(module, nn.Conv2d | GhostConv2d):
                module.forward = functools.partial(  # type: ignore[method-assign]
                    _convolve_one_channel, module
                )
    like = next((p for p in shadow.parameters() if p.is_floating_point()), torch.empty(0))
    device = like.device if reduced else torch.device("meta")
    with torch.no_grad():
        shadow(torch.zeros(input_shape, dtype=like.dtype, device=device), **(arguments or {}))
    return calls


def layer_calls(
    model: nn.Module, input_shape: tuple[int, ...], arguments: Mapping[str, Any] | None = None
) -> list[LayerCall]:
    """Return ``trace_calls`` of any network, as cheaply as it can be had.

    Networks whose forward reads values, which the meta device has none of, run on their own.
    """
    try:
        return trace_calls(model, input_shape, arguments)
    # Torch says it as RuntimeError, NotImplementedError, or by an error of the network's own.
    except Exception:
        return trace_calls(model, input_shape, arguments, reduced=True)


def influence_radius(
    model: nn.Module,
    channels: int,
    arguments: Mapping[str, Any] | None = None,
    multiple: int = 1,
) -> Fraction:
    """Return how far an output pixel of ``model`` looks, in pixels of the input.

    Each convolution call adds half its dilated kernel and the largest shift of a ghost layer, in
    pixels of the map it reads. For networks whose convolutions all lie on one path (EDSR, RDN,
    CARN, VDSR) this is exact; where convolutions run side by side it is an upper bound.

    Args:
        model: A fully convolutional network of stride-1 convolutions.
        channels: Channels of its input.
        arguments: Keyword arguments of its ``forward``.
        multiple: What the sides of its input must be multiples of.
    """
    side = 8 * multiple
    radius = Fraction(0)
    for call in trace_calls(model, (1, channels, side, side), arguments, reduced=True):
        module = call.module
        if not isinstance(module, nn.Conv2d | GhostConv2d):
            continue
        kernel = max(
            (size - 1) * dilation
            for size, dilation in zip(module.kernel_size, module.dilation, strict=True)
        )
        shift = module.max_shift if isinstance(module, GhostConv2d) else 0
        layer_radius = Fraction(kernel, 2) + shift
        radius += layer_radius * Fraction(side, call.input_shape[-1])
    return radius


def _shadow(model: nn.Module, *, on_meta: bool) -> nn.Module:
    """Return a copy of the modules that shares their tensors or has them on the meta device."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        attributes = [value for value in vars(module).values() if isinstance(value, Tensor)]
        for tensor in (*module.parameters(False), *module.buffers(False), *attributes):
            memo[id(tensor)] = _meta_twin(tensor) if on_meta else tensor
    return copy.deepcopy(model, memo).eval()


def _convolve_one_channel(layer: nn.Conv2d | GhostConv2d, input: Tensor, *_: Tensor) -> Tensor:
    """Return zeros of the shape of the layer's output, whose channels share their memory."""
    kernel = input.new_zeros(1, 1, *layer.kernel_size)
    output = functional.conv2d(
        input[:, :1], kernel, None, layer.stride, layer.padding, layer.dilation
    )
    return output.expand(-1, layer.out_channels, -1, -1)


def _meta_twin(tensor: Tensor) -> Tensor:
    twin = torch.empty_like(tensor, device="meta")
    return nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin
