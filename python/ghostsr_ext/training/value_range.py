"""The value range as a separate factor, so that one learning rate suits every layer.

A network for values in 0..255 hides the factor of 255 in one of two places. Some have a first
convolution with weights 255 times smaller, and a last one with weights 255 times larger, than the
same network for 0..1, and features of the size of the latter. Others have weights like any network,
and carry values in 0..255 through their features, with biases to match. An optimiser such as Adam
moves all parameters by about the learning rate, whatever their size, which suits neither: the ends
of the former and the biases of the latter have to be rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ghostsr_ext.models import SRModel, model_from_config
from ghostsr_ext.models.layer_calls import trace_calls
from ghostsr_ext.nn import GhostConv2d

Carrier = Literal["ends", "features"]
"""What absorbs the factor between two value ranges."""

_TRACED_SIDE = 16
_BIASES = ("bias", "ghost_bias")
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OriginalRange:
    """Where a network came from that was rewritten for values in 0..1.

    Attributes:
        white: The value of white that it had.
        carrier: What absorbed the factor, and has to again on the way back.
    """

    white: float
    carrier: Carrier


def to_unit_range(model: SRModel) -> OriginalRange:
    """Rewrite a network in place for values in 0..1; return where it came from."""
    original = OriginalRange(model.value_range, natural_carrier(model))
    set_value_range(model, 1.0, original.carrier)
    return original


@torch.no_grad()
def natural_carrier(model: SRModel) -> Carrier:
    """Return what absorbs the factor to values in 0..1 so that layers become of one size.

    It is the features where the first and the last layer are nearer to each other in size as they
    are than with the factor in them, and where the network is homogeneous, that is, where an input
    and biases of half the size give half the output: convolutions and rectifiers, but no attention
    or normalisation.
    """
    first, *_ = _ends(model, 0)
    last, *_ = _ends(model, -1)
    # With the factor in them the ratio of the two changes by the square of the range.
    if _gain(last) > model.value_range * _gain(first) or not _is_homogeneous(model):
        return "ends"
    return "features"


@torch.no_grad()
def set_value_range(model: SRModel, value_range: float, carrier: Carrier = "ends") -> SRModel:
    """Rewrite a network for another value of white, without changing what it computes.

    Args:
        model: The network; changed in place, its ``config`` and attributes too.
        value_range: The new value of white in input and output, 1.0 or 255.0.
        carrier: What absorbs the factor beside the mean color. ``"ends"``: the first convolution's
            weights, the last one's weights and bias; features in between stay as they are.
            ``"features"``: all biases; weights stay as they are. The latter is right for
            homogeneous networks only, see :func:`natural_carrier`.

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
    if carrier == "ends":
        _scale_ends(model, factor)
    else:
        for bias in _biases(model):
            bias.mul_(factor)
    if model.mean is not None:
        model.mean.mul_(factor)
    model.config = config
    model.value_range = float(value_range)
    return model


def _scale_ends(model: SRModel, factor: float) -> None:
    for layer in _ends(model, 0):
        layer.weight.div_(factor)
    for layer in _ends(model, -1):
        layer.weight.mul_(factor)
        for name in _BIASES:
            bias = getattr(layer, name, None)
            if bias is not None:
                bias.mul_(factor)


def _biases(model: SRModel) -> Iterator[Tensor]:
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] in _BIASES:
            yield parameter


def _gain(layer: nn.Conv2d | GhostConv2d) -> float:
    """How much larger outputs are than inputs that are alike and independent of each other."""
    weight = layer.weight.detach()
    return float((weight.square().sum() / weight.shape[0]).sqrt())


def _is_homogeneous(model: SRModel) -> bool:
    """Whether the output of a picture scales with its input, its biases and its mean."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, model.channels, _TRACED_SIDE, _TRACED_SIDE)
    first = next(model.parameters())
    picture = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
    picture = (picture * model.value_range).to(first.device, first.dtype)
    scaled = [*_biases(model), *([] if model.mean is None else [model.mean])]
    before = [tensor.clone() for tensor in scaled]
    training = model.training
    model.eval()
    try:
        for scale in model.scales:
            whole = model(picture, scale)
            for tensor in scaled:
                tensor.div_(2)
            half = model(picture / 2, scale)
            for tensor, value in zip(scaled, before, strict=True):
                tensor.copy_(value)
            limit = _TOLERANCE * float(whole.abs().max().clamp_min(torch.finfo(whole.dtype).tiny))
            if not float((whole - 2 * half).abs().max()) <= limit:
                return False
    finally:
        model.train(training)
    return True


def _ends(model: SRModel, position: int) -> list[nn.Conv2d | GhostConv2d]:
    """The first (0) or last (-1) layer that each scale calls."""
    found: dict[int, nn.Conv2d | GhostConv2d] = {}
    shape = (1, model.channels, _TRACED_SIDE, _TRACED_SIDE)
    for scale in model.scales:
        module: nn.Module = trace_calls(model, shape, {"scale": scale})[position].module
        assert isinstance(module, nn.Conv2d | GhostConv2d)
        found[id(module)] = module
    return list(found.values())
