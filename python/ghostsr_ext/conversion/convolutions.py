"""Which convolutions a network calls, in the order of their execution."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.activations import Activation
from ghostsr_ext.conversion.watching import Convolution, Watched, watch
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d

_EXAMPLE_SIDE = 24


@dataclass
class TracedConvolution:
    """One convolution of a network.

    Attributes:
        name: Its first name in the network.
        module: The layer itself.
        uses: How often one forward pass calls it; 0 for a layer that is never called.
        positions: Output pixels of one example, over all uses.
        feeds_upsampling: Whether its output is enlarged before another convolution runs.
        side: Rows or columns of its smallest output, whichever are fewer.
        activations: For each use, the function of each element that is all that reads the output;
            None where there is no such function.
        handled: Whether the network reads or writes its weight or bias outside of it.
    """

    name: str
    module: Convolution
    uses: int = 0
    positions: int = 0
    side: int = sys.maxsize
    feeds_upsampling: bool = False
    activations: list[Activation | None] = field(default_factory=list)
    handled: bool = False


@dataclass(frozen=True)
class Trace:
    """The convolutions of a network: those that are called, in order, then those that never are."""

    called: tuple[TracedConvolution, ...]
    uncalled: tuple[TracedConvolution, ...]

    def __iter__(self) -> Any:
        return iter((*self.called, *self.uncalled))


def example_input(model: nn.Module) -> Tensor:
    """Return a small input for ``model``: noise with the channels of its first convolution.

    Raises:
        InputError: The network has no convolution.
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | GhostConv2d)), None)
    if first is None:
        raise InputError("model: has no convolution to convert")
    channels = model.channels if isinstance(model, SRModel) else first.in_channels
    white = model.value_range if isinstance(model, SRModel) else 1.0
    weight = first.weight
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, channels, _EXAMPLE_SIDE, _EXAMPLE_SIDE, generator=generator) * white
    return noise.to(weight.device, weight.dtype)


def forward_arguments(model: nn.Module) -> list[Mapping[str, Any]]:
    """Return the keyword arguments of the forward passes that use all of a network.

    A network of several scales needs one pass a scale; its default scale comes first.
    """
    if not isinstance(model, SRModel):
        return [{}]
    scales = [model.scale, *(scale for scale in model.scales if scale != model.scale)]
    return [{"scale": scale} for scale in scales]


@torch.no_grad()
def trace(model: nn.Module, example: Tensor) -> Trace:
    """Run ``model`` and list its convolutions.

    Args:
        model: The network, in evaluation mode.
        example: An input of it.

    Raises:
        InputError: The network cannot be run on ``example``, or it calls its layers in an order
            that depends on the picture.
    """
    names = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | GhostConv2d)
    }
    entries = {name: TracedConvolution(name, module) for name, module in names.items()}
    called: dict[str, TracedConvolution] = {}
    for number, arguments in enumerate(forward_arguments(model)):
        seen = _run(model, names, example, arguments)
        other = _run(model, names, -example, arguments)
        if [call.name for call in seen.calls] != [call.name for call in other.calls]:
            raise InputError(
                "model: which layers it calls depends on its input, so it cannot be converted"
            )
        # Several scales share layers; a layer's uses are those of the first scale that has it.
        new = {call.name for call in seen.calls} - called.keys()
        for call in seen.calls:
            entry = called.setdefault(call.name, entries[call.name])
            height, width = call.shape[-2:]
            entry.side = min(entry.side, height, width)
            entry.feeds_upsampling |= call.feeds_upsampling
            if call.name in new:
                entry.uses += 1
                entry.activations.append(call.activation)
            # Fits see the default scale.
            entry.positions += call.shape[0] * height * width if number == 0 else 0
        for name in seen.handled:
            entries[name].handled = True
    return Trace(
        tuple(called.values()),
        tuple(entry for name, entry in entries.items() if name not in called),
    )


def _run(
    model: nn.Module,
    names: Mapping[str, Convolution],
    example: Tensor,
    arguments: Mapping[str, Any],
) -> Watched:
    try:
        return watch(model, names, lambda: model(example.clone(), **arguments))
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model: cannot be run on an input of shape {list(example.shape)} ({reason}); "
            "pass one that fits as example"
        ) from error
