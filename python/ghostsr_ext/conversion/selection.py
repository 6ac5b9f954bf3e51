"""Which layers of a network are converted, and why others are not."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from ghostsr_ext.conversion.conversion_report import SkippedLayer
from ghostsr_ext.conversion.convolutions import Trace, TracedConvolution
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, ghost_count

_LEAST_SHARE = 2e-4
_POSITIONS_PER_UNKNOWN = 2

LayerPredicate = Callable[[str, nn.Module], bool]
"""Called with a convolution's name and the convolution; true to convert it."""


def select_layers(
    model: nn.Module,
    trace: Trace,
    layers: Sequence[str] | LayerPredicate | None,
    rules: Rules | None = None,
) -> tuple[list[TracedConvolution], list[SkippedLayer]]:
    """Return the convolutions to convert, in the order of execution, and the rest with reasons.

    Args:
        model: The network.
        trace: Its convolutions.
        layers: Names, a predicate, or None: what an ``SRModel`` declares; for any other network all
            but the first and the last convolution and those whose output is enlarged.
        rules: Which layers are unsuitable; None for none.

    Raises:
        InputError: A name is unknown, or a weight is NaN or infinite.
    """
    skipped: list[SkippedLayer] = []
    wanted: list[TracedConvolution] = []
    if layers is None and isinstance(model, SRModel):
        layers = model.default_layers()
    if layers is None:
        ends = {trace.called[0].name: "the first", trace.called[-1].name: "the last"}
        for entry in trace.called:
            if entry.name in ends:
                skipped.append(SkippedLayer(entry.name, f"{ends[entry.name]} convolution"))
            elif entry.feeds_upsampling:
                skipped.append(SkippedLayer(entry.name, "its output is enlarged"))
            else:
                wanted.append(entry)
        wanted.extend(trace.uncalled)
    else:
        accept = _predicate(model, trace, layers)
        wanted = [entry for entry in trace if accept(entry.name, entry.module)]
    reasons = obstacles(trace)
    chosen = []
    for entry in wanted:
        reason = reasons.get(entry.name) or (rules and rules.unsuitable(entry))
        if reason:
            skipped.append(SkippedLayer(entry.name, reason))
            continue
        _check_finite(entry)
        chosen.append(entry)
    return chosen, skipped


@dataclass(frozen=True)
class Rules:
    """When a ghost cannot be right or saves next to nothing.

    Attributes:
        max_shift: Largest shift d in pixels.
        macs: Multiply-adds of each layer of the network, by its name.
        inputs: How many times the example's output positions a fit has; None without a fit.
    """

    max_shift: int
    macs: Mapping[str, int]
    inputs: float | None = None

    def unsuitable(self, entry: TracedConvolution) -> str | None:
        """Return why ``entry`` had better stay dense as it is, or None."""
        if self.max_shift and entry.side <= 2 * self.max_shift:
            return f"its map has {entry.side} rows or columns, too few to shift"
        reason = self.hardly_known(entry)
        if reason is None and self.macs.get(entry.name, 0) < _LEAST_SHARE * sum(self.macs.values()):
            return f"it takes less than {_LEAST_SHARE:.2%} of the multiply-adds"
        return reason

    def hardly_known(self, entry: TracedConvolution) -> str | None:
        """Return why a fit of ``entry`` would be guesswork, or None."""
        if self.inputs is None:
            return None
        module = entry.module
        unknowns = module.in_channels // module.groups * math.prod(module.kernel_size)
        positions = entry.positions * self.inputs
        if positions >= _POSITIONS_PER_UNKNOWN * unknowns:
            return None
        return (
            f"its {positions:.0f} positions on the calibration pictures are too few for "
            f"filters of {unknowns} weights"
        )


def too_few_channels(layer: nn.Conv2d, ghost_ratio: float) -> str | None:
    """Return why ``layer`` has no ghost at ``ghost_ratio``, or None where it has one."""
    if ghost_count(layer.out_channels, ghost_ratio, layer.groups):
        return None
    groups = f" in {layer.groups} groups" if layer.groups > 1 else ""
    return f"{layer.out_channels} output channels{groups} are too few for ratio {ghost_ratio:g}"


def _predicate(
    model: nn.Module, trace: Trace, layers: Sequence[str] | LayerPredicate
) -> LayerPredicate:
    if callable(layers):
        return layers
    if isinstance(layers, str):
        raise InputError(f"layers: found the text {layers!r}; a list of names is allowed")
    # A shared layer may be called by any of its names.
    first_names = {id(entry.module): entry.name for entry in trace}
    aliases = {
        name: first_names[id(module)]
        for name, module in model.named_modules(remove_duplicate=False)
        if id(module) in first_names
    }
    for name in layers:
        if name not in aliases:
            nearest = difflib.get_close_matches(name, aliases, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise InputError(f"layers: the network has no convolution {name!r}{hint}")
    names = {aliases[name] for name in layers}
    return lambda name, _: name in names


def obstacles(trace: Trace) -> dict[str, str]:
    """Return why layers cannot be converted, for those that cannot, by their names."""
    sharers = _shared_weights(trace)
    reasons = {entry.name: _obstacle(entry, sharers) for entry in trace}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _shared_weights(trace: Trace) -> dict[int, list[str]]:
    sharers: dict[int, list[str]] = {}
    for entry in trace:
        sharers.setdefault(id(entry.module.weight), []).append(entry.name)
    return sharers


def _obstacle(entry: TracedConvolution, sharers: dict[int, list[str]]) -> str | None:
    module = entry.module
    if isinstance(module, GhostConv2d):
        return "is a ghost layer already"
    if not entry.uses:
        return "the network never calls it"
    if parametrize.is_parametrized(module) or not isinstance(module.weight, nn.Parameter):
        return "its weight is computed by a parametrization"
    if type(module) not in (nn.Conv2d, FusedConv2d):
        return f"its class {type(module).__name__} may compute something else than a convolution"
    if entry.handled:
        return "the network reads or writes its weight itself"
    others = [name for name in sharers[id(module.weight)] if name != entry.name]
    if others:
        return f"shares its weight with {others[0]}"
    if not module.weight.is_floating_point():
        return f"its weight is of type {module.weight.dtype}"
    return None


def _check_finite(entry: TracedConvolution) -> None:
    for name, parameter in entry.module.named_parameters(recurse=False):
        if not bool(torch.isfinite(parameter).all()):
            raise InputError(f"model: {entry.name}.{name} has entries that are NaN or infinite")
