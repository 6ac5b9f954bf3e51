"""The value range as a separate factor, so that one learning rate suits every layer.

A network for values in 0..255 has a first convolution with weights 255 times smaller, and a last
one with weights 255 times larger, than the same network for 0..1. An optimiser such as Adam moves
all weights by about the learning rate, whatever their size, which is too much for the first and too
little for the last.
"""

from __future__ import annotations

import torch
from torch import nn

from ghostsr_ext.models import SRModel, model_from_config
from ghostsr_ext.models.tracing import trace_calls
from ghostsr_ext.nn import GhostConv2d

_TRACED_SIDE = 16


@torch.no_grad()
def set_value_range(model: SRModel, value_range: float) -> SRModel:
    """Rewrite a network for another value of white, without changing what it computes.

    The first convolution's weights, the last one's weights and bias, and the mean colour absorb the
    factor; features in between stay as they are.

    Args:
        model: The network; changed in place, its ``config`` and attributes too.
        value_range: The new value of white in input and output, 1.0 or 255.0.

    Returns:
        ``model`` itself.

    Raises:
        InputError: ``value_range`` is neither 1.0 nor 255.0.
    """
    if value_range == model.value_range:
        return model
    factor = value_range / model.value_range
    config = {**model.config, "value_range": value_range}
    if model.mean is not None:
        # Rounded, so that there and back gives the same decimals.
        config["mean"] = [round(value * factor, 12) for value in config["mean"]]
    with torch.device("meta"):
        # The network's own class is the judge of the new range.
        model_from_config(config)
    for layer in _ends(model, 0):
        layer.weight.div_(factor)
    for layer in _ends(model, -1):
        layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.mul_(factor)
        if isinstance(layer, GhostConv2d) and layer.ghost_bias is not None:
            layer.ghost_bias.mul_(factor)
    if model.mean is not None:
        model.mean.mul_(factor)
    model.config = config
    model.value_range = float(value_range)
    return model


def _ends(model: SRModel, position: int) -> list[nn.Conv2d | GhostConv2d]:
    """The first (0) or last (-1) layer that each scale calls."""
    found: dict[int, nn.Conv2d | GhostConv2d] = {}
    shape = (1, model.channels, _TRACED_SIDE, _TRACED_SIDE)
    for scale in model.scales:
        module: nn.Module = trace_calls(model, shape, {"scale": scale})[position].module
        assert isinstance(module, nn.Conv2d | GhostConv2d)
        found[id(module)] = module
    return list(found.values())
