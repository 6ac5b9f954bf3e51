"""What became of each layer, and how near it is to the layer that it replaces."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d, ghost_layers
from ghostsr_ext.report.similarity import count_alike


@dataclass(frozen=True)
class Ghost:
    """One ghost channel.

    Attributes:
        channel: The output channel.
        source: The output channel that it is made from.
        shift: (dy, dx), in pixels.
    """

    channel: int
    source: int
    shift: tuple[int, int]


@dataclass(frozen=True)
class LayerComparison:
    """A ghost layer beside the dense layer that it replaces.

    Attributes:
        name: The layer's name in both networks.
        intrinsic: The output channels that are computed, ascending.
        ghosts: The others, ascending by channel.
        max_shift: Largest shift that the layer allows.
        relative_error: Squared difference of the layers' outputs over the variance of the dense
            one's, each in its own network, which both got the same picture.
        alike: How many maps of the dense layer's convolution are nearly a shifted copy of another
            one: see ``count_alike``.
    """

    name: str
    intrinsic: tuple[int, ...]
    ghosts: tuple[Ghost, ...]
    max_shift: int
    relative_error: float
    alike: int

    @property
    def shifts(self) -> Counter[tuple[int, int]]:
        """How many ghosts have each shift."""
        return Counter(ghost.shift for ghost in self.ghosts)


def compare_layers(
    dense: SRModel, ghost: SRModel, image: Tensor, scale: int
) -> tuple[list[LayerComparison], dict[str, Tensor]]:
    """Compare each ghost layer with the dense layer of its name.

    Args:
        dense: The parent, in evaluation mode.
        ghost: The converted network, in evaluation mode.
        image: An input of both, [1, C, h, w].
        scale: One of the scales of both.

    Returns:
        The comparisons in the order of the network, and the maps [C_out, h, w] of the dense layers
        by name: what their convolutions give, before a residual and an activation.

    Raises:
        InputError: There is no ghost layer, or the dense network has no such layer.
    """
    layers = ghost_layers(ghost)
    if not layers:
        raise InputError("ghost network: has no ghost layers; give a converted network")
    parents = dict(dense.named_modules())
    for name, layer in layers.items():
        if getattr(parents.get(name), "out_channels", None) != layer.out_channels:
            raise InputError(f"parent: has no layer {name} of {layer.out_channels} channels")
    calls = _record(dense, list(layers), image, scale)
    ghost_calls = _record(ghost, list(layers), image, scale)
    with torch.inference_mode():
        maps = {name: _maps(parents[name], calls[name].input) for name in layers if name in calls}
        comparisons = [
            _compare(
                name,
                layers[name],
                ghost_calls[name].output,
                calls[name].output,
                count_alike(maps[name]),
            )
            for name in maps
        ]
    return comparisons, maps


def ghost_maps(ghost: SRModel, name: str, image: Tensor, scale: int) -> Tensor:
    """Return what a ghost layer computes in its network: intrinsic and ghost channels.

    Args:
        ghost: The converted network, in evaluation mode.
        name: One of its ghost layers.
        image: An input, [1, C, h, w].
        scale: One of its scales.

    Returns:
        [C_out, h, w], before a residual and an activation: each ghost channel is its source,
        shifted, times its gain plus its bias.
    """
    calls = _record(ghost, [name], image, scale)
    with torch.inference_mode():
        return _maps(dict(ghost.named_modules())[name], calls[name].input)


@dataclass(frozen=True)
class _Call:
    input: Tensor
    output: Tensor


def _record(network: SRModel, names: list[str], image: Tensor, scale: int) -> dict[str, _Call]:
    """Run a network; return the first call of each layer named."""
    calls: dict[str, _Call] = {}
    modules = dict(network.named_modules())

    def recorder(name: str) -> Any:
        def record(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            calls.setdefault(name, _Call(inputs[0], output))

        return record

    handles = [modules[name].register_forward_hook(recorder(name)) for name in names]
    try:
        with torch.inference_mode():
            network(image, scale)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _maps(layer: nn.Module, input: Tensor) -> Tensor:
    """Return what a layer computes [C_out, h, w] before a residual and an activation."""
    bare: Any = copy.deepcopy(layer)
    bare.activation, bare.residual_scale = "none", 1.0
    output: Tensor = bare(input)
    return output[0]


def _compare(
    name: str, layer: GhostConv2d, output: Tensor, expected: Tensor, alike: int
) -> LayerComparison:
    error = (output - expected).square().mean()
    variance = expected.var(unbiased=False)
    order = layer.order.tolist()
    place = {channel: position for position, channel in enumerate(order)}
    intrinsic = layer.intrinsic_channels
    ghosts = [
        Ghost(place[intrinsic + g], place[source], (shift[0], shift[1]))
        for g, (source, shift) in enumerate(
            zip(layer.source.tolist(), layer.selected_shift().tolist(), strict=True)
        )
    ]
    return LayerComparison(
        name=name,
        intrinsic=tuple(sorted(place[channel] for channel in range(intrinsic))),
        ghosts=tuple(sorted(ghosts, key=lambda ghost: ghost.channel)),
        max_shift=layer.max_shift,
        relative_error=float(error / variance) if variance > 0 else 0.0,
        alike=alike,
    )
