"""Storing the layers that GhostSR is compared with: pruned ones and depthwise ghosts.

A network's description has, where it needs them, two more objects with an entry for each layer by
its name: ``narrowed_layers``, with ``in_channels`` and ``out_channels``, for convolutions that have
lost channels; and ``depthwise_layers``, with ``intrinsic_channels`` and ``size``, for
``DepthwiseGhostConv2d``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel, model_from_config
from ghostsr_ext.models.foreign import SpandrelNetwork
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments, epilogue_arguments


def describe_comparison_layers(model: SRModel) -> dict[str, Any]:
    """Return the objects that ``model`` needs; an empty dictionary for most networks.

    Raises:
        InputError: It needs some, and is a network of spandrel's, which is rebuilt by its shapes.
    """
    if isinstance(model, SpandrelNetwork):
        _check_widths(model)
        return {}
    with torch.device("meta"):
        reference = dict(model_from_config(model.config).named_modules())
    narrowed, depthwise = {}, {}
    for name, module in model.named_modules():
        original = reference.get(name)
        if isinstance(module, DepthwiseGhostConv2d):
            depthwise[name] = {
                "intrinsic_channels": module.primary.out_channels,
                "size": module.cheap.kernel_size[0],
            }
        elif isinstance(module, FusedConv2d) and isinstance(original, FusedConv2d):
            widths = {"in_channels": module.in_channels, "out_channels": module.out_channels}
            if (original.in_channels, original.out_channels) != tuple(widths.values()):
                narrowed[name] = widths
    found = {"narrowed_layers": narrowed, "depthwise_layers": depthwise}
    return {block: layers for block, layers in found.items() if layers}


def replace_by_comparison_layers(model: nn.Module, description: Mapping[str, Any]) -> None:
    """Put the layers of a description into a new network, whose weights are yet to be read.

    Raises:
        InputError: A name is no fused convolution of the network, or a number makes no layer.
    """
    for name, settings in description["narrowed_layers"].items():
        dense = _convolution(model, name)
        widths = settings["in_channels"], settings["out_channels"]
        if widths[0] > dense.in_channels or widths[1] > dense.out_channels:
            raise InputError(
                f"narrowed layer {name}: found {widths} channels, but the layer has "
                f"{(dense.in_channels, dense.out_channels)}"
            )
        narrowed = _like(dense, *widths)
        model.set_submodule(name, narrowed)
    for name, settings in description["depthwise_layers"].items():
        dense = _convolution(model, name)
        intrinsic, size = settings["intrinsic_channels"], settings["size"]
        if not 0 < intrinsic < dense.out_channels or size not in range(1, 17, 2):
            raise InputError(f"depthwise layer {name}: {settings} fits no layer")
        primary = FusedConv2d(dense.in_channels, intrinsic, **convolution_arguments(dense))
        layer = DepthwiseGhostConv2d(
            primary,
            dense.out_channels - intrinsic,
            size,
            **epilogue_arguments(dense),
        )
        model.set_submodule(name, layer)


def check_comparison_layers(model: nn.Module) -> None:
    """Check the tables that were read.

    Raises:
        InputError: An entry is out of range.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, DepthwiseGhostConv2d):
            computed = layer.primary.out_channels
            if int(layer.source.min()) < 0 or int(layer.source.max()) >= computed:
                raise InputError(f"{name}.source has entries outside 0..{computed - 1}")
            if not torch.equal(layer.order.sort().values, _identity(layer)):
                raise InputError(f"{name}.order is no permutation of 0..{layer.out_channels - 1}")


def _identity(layer: DepthwiseGhostConv2d) -> Tensor:
    return torch.arange(layer.out_channels, device=layer.order.device)


def _check_widths(model: SpandrelNetwork) -> None:
    for name, shape in model.filters.items():
        layer = model.get_submodule(name)
        if isinstance(layer, GhostConv2d):
            continue
        if not isinstance(layer, nn.Conv2d) or tuple(layer.weight.shape) != shape:
            raise InputError(
                f"{name}: pruned layers and depthwise ghosts of spandrel's networks cannot be "
                "stored; ghost layers can"
            )


def _convolution(model: nn.Module, name: str) -> FusedConv2d:
    layer = model.get_submodule(name)
    if not isinstance(layer, FusedConv2d):
        raise InputError(f"layer {name}: {type(layer).__name__} is no fused convolution")
    return layer


def _like(dense: FusedConv2d, in_channels: int, out_channels: int) -> FusedConv2d:
    epilogue = epilogue_arguments(dense)
    if epilogue.get("prelu_parameters", 1) > 1:
        epilogue["prelu_parameters"] = out_channels
    return FusedConv2d(in_channels, out_channels, **convolution_arguments(dense), **epilogue)
