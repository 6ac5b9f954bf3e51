"""Which convolutions a network calls, in the order of their execution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d

Convolution = nn.Conv2d | GhostConv2d

_UPSAMPLING = ("pixel_shuffle", "interpolate", "conv_transpose2d")
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
    """

    name: str
    module: Convolution
    uses: int = 0
    positions: int = 0
    feeds_upsampling: bool = False

    def macs(self, computed_channels: int) -> int:
        """Multiply-adds of one example if the layer convolves to ``computed_channels``."""
        module = self.module
        filter_size = module.in_channels // module.groups * math.prod(module.kernel_size)
        return self.positions * computed_channels * filter_size


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
    passes = []
    for arguments in forward_arguments(model):
        events = _run(model, example, arguments)
        if [e.name for e in events] != [e.name for e in _run(model, -example, arguments)]:
            raise InputError(
                "model: which layers it calls depends on its input, so it cannot be converted"
            )
        passes.append(events)
    names = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | GhostConv2d):
            names[name] = TracedConvolution(name, module)
    called: dict[str, TracedConvolution] = {}
    for events in passes:
        # Several scales share layers; a layer's uses are those of the first scale that has it.
        new = {event.name for event in events} - called.keys()
        for event in events:
            entry = called.setdefault(event.name, names[event.name])
            entry.feeds_upsampling |= event.feeds_upsampling
            entry.uses += event.name in new
            # The cost is that of the default scale.
            entry.positions += event.positions if events is passes[0] else 0
    return Trace(
        tuple(called.values()),
        tuple(entry for name, entry in names.items() if name not in called),
    )


@dataclass
class _Call:
    name: str
    positions: int
    channels: int
    feeds_upsampling: bool = False


@dataclass
class _Events:
    calls: list[_Call] = field(default_factory=list)


class _UpsamplingWatch(TorchFunctionMode):
    """Marks the latest convolution when a map with its number of channels is enlarged."""

    def __init__(self, calls: list[_Call]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in _UPSAMPLING and self._calls:
            latest = self._calls[-1]
            enlarged = args[0] if args else None
            if isinstance(enlarged, Tensor) and enlarged.shape[1] == latest.channels:
                latest.feeds_upsampling = True
        return func(*args, **(kwargs or {}))


def _run(model: nn.Module, example: Tensor, arguments: Mapping[str, Any]) -> list[_Call]:
    calls: list[_Call] = []
    handles = []

    def recorder(name: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            calls.append(_Call(name, output[:, 0].numel(), output.shape[1]))

        return record

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | GhostConv2d):
            handles.append(module.register_forward_hook(recorder(name)))
    try:
        with _UpsamplingWatch(calls):
            model(example.clone(), **arguments)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model: cannot be run on an input of shape {list(example.shape)} ({reason}); "
            "pass one that fits as example"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls
