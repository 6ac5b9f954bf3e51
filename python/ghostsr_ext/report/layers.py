"""What became of each layer, and how near it is to the layer that it replaces."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d, ghost_layers


@dataclass(frozen=True)
class Ghost:
    """One ghost channel.

    Attributes:
        channel: The output channel.
        source: The output channel that it is a shifted copy of.
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
        relative_error: Squared error of the ghost layer's output over the variance of the dense
            one's, both fed with what the dense network feeds it.
    """

    name: str
    intrinsic: tuple[int, ...]
    ghosts: tuple[Ghost, ...]
    max_shift: int
    relative_error: float

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
        The comparisons in the order of the network, and the dense layers' outputs [C_out, h, w] by
        name.

    Raises:
        InputError: There is no ghost layer, or the dense network has no such layer.
    """
    layers = ghost_layers(ghost)
    if not layers:
        raise InputError("ghost network: has no ghost layers; give a converted network")
    parents = dict(dense.named_modules())
    calls: dict[str, tuple[tuple[Any, ...], Tensor]] = {}
    handles = []
    for name, layer in layers.items():
        parent = parents.get(name)
        if getattr(parent, "out_channels", None) != layer.out_channels:
            raise InputError(f"parent: has no layer {name} of {layer.out_channels} channels")
        assert parent is not None
        handles.append(parent.register_forward_hook(_recorder(calls, name)))
    try:
        with torch.inference_mode():
            dense(image, scale)
            comparisons = [
                _compare(name, layer, *calls[name])
                for name, layer in layers.items()
                if name in calls
            ]
    finally:
        for handle in handles:
            handle.remove()
    return comparisons, {name: output[0] for name, (_, output) in calls.items()}


def _recorder(calls: dict[str, tuple[tuple[Any, ...], Tensor]], name: str) -> Any:
    def record(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls.setdefault(name, (inputs, output))

    return record


def _compare(
    name: str, layer: GhostConv2d, inputs: tuple[Any, ...], expected: Tensor
) -> LayerComparison:
    error = (layer(*inputs) - expected).square().mean()
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
    )
