"""What a network costs: parameters and multiply-adds, counted from shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from torch import nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.models.layer_calls import LAYER_TYPES, LayerCall, layer_calls
from ghostsr_ext.nn import GhostConv2d

LayerKind = Literal["dense", "ghost", "transposed", "linear"]


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
        name: The layer's name in the network.
        kind: ``"dense"`` or ``"ghost"`` convolution, ``"transposed"`` convolution or ``"linear"``.
        kernel: Height and width of the filters; (1, 1) for a linear layer.
        groups: Groups of the convolution.
        in_channels: Input channels.
        out_channels: Output channels, ghosts included.
        intrinsic_channels: Output channels that are computed by convolution.
        parameters: Weights and biases (with gains and ghost biases, without shift logits).
        biases: The part of ``parameters`` that are biases.
        macs: Multiply-adds for one picture, over all calls; 0 if the scale does not use the layer.
        calls: How often one forward pass uses the layer.
    """

    name: str
    kind: LayerKind
    kernel: tuple[int, int]
    groups: int
    in_channels: int
    out_channels: int
    intrinsic_channels: int
    parameters: int
    biases: int
    macs: int
    calls: int


@dataclass(frozen=True)
class Cost:
    """Cost of a network.

    Attributes:
        layers: Cost of each layer, in the order of the network's modules.
        parameters: All parameters of the network, biases included, shift logits not: logits are
            gone once the shifts are frozen.
        weights: ``parameters`` without biases. Published counts follow either convention (CARN's
            1592 K has the biases, CARN-M's 412 K has not).
        macs: Multiply-adds for one picture. Only convolutions and linear layers count; shifts,
            additions and activations are free, as in the papers.
        hr_size: Height and width of the upscaled picture.
        scale: The scale.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    weights: int
    macs: int
    hr_size: tuple[int, int]
    scale: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON-able dictionary."""
        return {
            **asdict(self),
            "hr_size": list(self.hr_size),
            "layers": [{**asdict(layer), "kernel": list(layer.kernel)} for layer in self.layers],
        }

    def table(self) -> str:
        """Return a text table with one row a layer and the total."""
        head = ("layer", "kind", "kernel", "groups", "channels", "parameters", "MACs (M)", "calls")
        rows: list[tuple[str, ...]] = [
            (
                layer.name,
                layer.kind,
                f"{layer.kernel[0]}x{layer.kernel[1]}",
                str(layer.groups),
                f"{layer.in_channels} -> {_channels_text(layer)}",
                f"{layer.parameters:,}",
                f"{layer.macs / 1e6:,.1f}",
                str(layer.calls),
            )
            for layer in self.layers
        ]
        rest = self.parameters - sum(layer.parameters for layer in self.layers)
        if rest:
            rows.append(("(other)", "", "", "", "", f"{rest:,}", "", ""))
        height, width = self.hr_size
        rows.append(
            (
                f"total, x{self.scale} to {width}x{height}",
                "",
                "",
                "",
                "",
                f"{self.parameters:,}",
                f"{self.macs / 1e6:,.1f}",
                str(sum(layer.calls for layer in self.layers)),
            )
        )
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(size) if column < 3 else cell.rjust(size)
                for column, (cell, size) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [head, *rows]
        )


def cost(
    model: nn.Module, hr_size: tuple[int, int] = (720, 1280), *, scale: int | None = None
) -> Cost:
    """Count the parameters and multiply-adds of a network.

    Nothing is computed and no memory for feature maps is taken. The input is the picture's size
    over the scale; where that is not whole, as 1280 / 3, the multiply-adds are those of the exact
    area, as in the papers.

    Args:
        model: An ``SRModel``, dense or converted; or any network from [1, 3, h, w] if ``scale`` is
            given.
        hr_size: Height and width of the upscaled picture; 1280 x 720 by convention.
        scale: The scale to count, of a network of several; None for ``model.scale``.

    Raises:
        InputError: A size or the scale is out of its domain.
    """
    if len(hr_size) != 2 or any(not isinstance(size, int) or size < 1 for size in hr_size):
        raise InputError(f"hr_size: got {hr_size!r}, allowed are a height and a width from 1")
    if isinstance(model, SRModel):
        scale = model.served_scale(scale)
        enlargement = 1 if model.input_upscaled else scale
        channels, arguments = model.channels, {"scale": scale}
    elif scale is None:
        raise InputError("scale: is needed for a network that is no SRModel")
    else:
        enlargement, channels, arguments = scale, 3, {}
    height, width = (math.ceil(size / enlargement) for size in hr_size)
    calls = layer_calls(model, (1, channels, height, width), arguments)
    exact = Fraction(hr_size[0] * hr_size[1], enlargement**2 * height * width)
    macs = {name: count * exact for name, count in macs_by_layer(calls).items()}
    uses = Counter(call.name for call in calls)
    layers = tuple(
        _layer_cost(name, module, round(macs.get(name, Fraction(0))), uses[name])
        for name, module in model.named_modules()
        if isinstance(module, LAYER_TYPES)
    )
    named = [
        (name.rpartition(".")[2], parameter.numel())
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] != "logits"
    ]
    parameters = sum(count for _, count in named)
    return Cost(
        layers=layers,
        parameters=parameters,
        weights=parameters - sum(count for name, count in named if name in _BIASES),
        macs=round(sum(macs.values(), Fraction(0))),
        hr_size=(hr_size[0], hr_size[1]),
        scale=scale,
    )


def describe(model: SRModel) -> dict[str, Any]:
    """Return what a network is and costs, as a JSON-able dictionary.

    Its entries are ``architecture``, ``hyperparameters``, ``scales``, ``value_range``, ``color``,
    ``input_upscaled``, ``receptive_field`` (a radius, see ``SRModel.receptive_field``),
    ``ghost_layers`` (number), ``convolutions`` (number), ``cost`` (see ``Cost.to_json``),
    ``origin`` and ``metadata``.
    """
    hyperparameters = dict(model.config)
    architecture = hyperparameters.pop("architecture")
    total = cost(model)
    return {
        "architecture": architecture,
        "hyperparameters": hyperparameters,
        "scales": list(model.scales),
        "value_range": model.value_range,
        "color": model.color,
        "input_upscaled": model.input_upscaled,
        "receptive_field": model.receptive_field,
        "ghost_layers": sum(layer.kind == "ghost" for layer in total.layers),
        "convolutions": sum(layer.kind != "linear" for layer in total.layers),
        "cost": total.to_json(),
        "origin": dict(model.origin),
        "metadata": dict(model.metadata),
    }


_BIASES = ("bias", "ghost_bias")


def macs_by_layer(calls: Sequence[LayerCall]) -> dict[str, int]:
    """Return the multiply-adds of each layer over all its calls, by its name."""
    macs: dict[str, int] = {}
    for call in calls:
        macs[call.name] = macs.get(call.name, 0) + _call_macs(call)
    return macs


def _call_macs(call: LayerCall) -> int:
    module = call.module
    outputs = math.prod(call.output_shape)
    if isinstance(module, nn.Linear):
        return outputs * module.in_features
    if isinstance(module, nn.ConvTranspose2d):
        filters = module.out_channels // module.groups
        return math.prod(call.input_shape) * filters * math.prod(module.kernel_size)
    assert isinstance(module, nn.Conv2d | GhostConv2d)
    computed = _intrinsic_channels(module)
    positions = outputs // module.out_channels
    return (
        positions * computed * (module.in_channels // module.groups) * math.prod(module.kernel_size)
    )


def _intrinsic_channels(module: nn.Conv2d | nn.ConvTranspose2d | GhostConv2d) -> int:
    return module.intrinsic_channels if isinstance(module, GhostConv2d) else module.out_channels


def _layer_cost(name: str, module: nn.Module, macs: int, calls: int) -> LayerCost:
    counts = {
        key: parameter.numel()
        for key, parameter in module.named_parameters(recurse=False)
        if key != "logits"
    }
    shared: dict[str, Any] = {
        "name": name,
        "parameters": sum(counts.values()),
        "biases": sum(counts.get(key, 0) for key in _BIASES),
        "macs": macs,
        "calls": calls,
    }
    if isinstance(module, nn.Linear):
        return LayerCost(
            kind="linear",
            kernel=(1, 1),
            groups=1,
            in_channels=module.in_features,
            out_channels=module.out_features,
            intrinsic_channels=module.out_features,
            **shared,
        )
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | GhostConv2d)
    kind: LayerKind = "dense"
    if isinstance(module, GhostConv2d):
        kind = "ghost"
    elif isinstance(module, nn.ConvTranspose2d):
        kind = "transposed"
    return LayerCost(
        kind=kind,
        kernel=(module.kernel_size[0], module.kernel_size[1]),
        groups=module.groups,
        in_channels=module.in_channels,
        out_channels=module.out_channels,
        intrinsic_channels=_intrinsic_channels(module),
        **shared,
    )


def _channels_text(layer: LayerCost) -> str:
    ghosts = layer.out_channels - layer.intrinsic_channels
    return f"{layer.intrinsic_channels} + {ghosts}" if ghosts else str(layer.out_channels)
