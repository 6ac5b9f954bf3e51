"""Turning a pretrained network into a GhostSR network."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.kmeans import fit_kmeans
from ghostsr_ext.conversion.report import ConversionReport, LayerReport, SkippedLayer
from ghostsr_ext.conversion.selection import LayerPredicate, select_layers, too_few_channels
from ghostsr_ext.conversion.tables import GhostFit, build_ghost_layer
from ghostsr_ext.conversion.tracing import Trace, TracedConvolution, example_input, trace
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import MAX_SHIFT_LIMIT, GhostConv2d, ShiftScope

Method = Literal["kmeans"]
METHODS: tuple[str, ...] = get_args(Method)

Progress = Callable[[int, int, str], None]
"""Called after each layer with the layers done, the layers in all, and the layer's name."""

Model = TypeVar("Model", bound=nn.Module)

_HR_PIXELS = 1280 * 720


def convert(
    model: Model,
    ghost_ratio: float = 0.5,
    *,
    method: Method = "kmeans",
    layers: Sequence[str] | LayerPredicate | None = None,
    max_shift: int = 1,
    shift_scope: ShiftScope = "channel",
    seed: int = 0,
    example: Tensor | None = None,
    progress: Progress | None = None,
) -> tuple[Model, ConversionReport]:
    """Return a copy of ``model`` with ghost layers in the place of dense convolutions.

    The shifts of the result are frozen, so it is ready to run; ``ghostsr_ext.nn.learn_shifts``
    makes them trainable. The order of the channels is kept, so nothing else in the network changes.

    Args:
        model: A network; it is not changed. An ``SRModel`` gets the report in its ``metadata``.
        ghost_ratio: Part of each layer's outputs that is made by shifting, in [0, 1).
        method: ``"kmeans"``, the paper's clustering of filters.
        layers: Names of convolutions, or a predicate that takes a name and a convolution. None
            takes what an ``SRModel`` declares; in any other network all convolutions but the first,
            the last and those whose output is enlarged.
        max_shift: Largest shift d that the ghost layers allow, 0 to 7.
        shift_scope: Whether each ghost has its own shift or all ghosts of a layer have one.
        seed: Of what is random.
        example: An input of the network, to find its layers by running it; by default noise of
            24 x 24 pixels.
        progress: Called after each layer.

    Returns:
        The converted network and the report.

    Raises:
        InputError: An argument is outside its domain, the network cannot be run or has weights that
            are NaN or infinite, or no layer could be converted; the message says why.
    """
    started = time.perf_counter()
    _check_arguments(ghost_ratio, method, max_shift, shift_scope)
    converted = copy.deepcopy(model)
    was_training = {name: module.training for name, module in converted.named_modules()}
    converted.eval()
    example = example_input(converted) if example is None else example
    network = trace(converted, example)
    selected, skipped = select_layers(converted, network, layers)
    chosen: list[TracedConvolution] = []
    for entry in selected:
        assert isinstance(entry.module, nn.Conv2d)
        reason = too_few_channels(entry.module, ghost_ratio)
        if reason is None:
            chosen.append(entry)
        else:
            skipped.append(SkippedLayer(entry.name, reason))
    if ghost_ratio and not chosen:
        reasons = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped[:5])
        raise InputError(f"model: no layer can be converted ({reasons or 'none is selected'})")

    macs_unit, macs_for = _macs_unit(converted, example)
    reports = []
    for done, entry in enumerate(chosen, start=1):
        dense = entry.module
        assert isinstance(dense, nn.Conv2d)
        fit = fit_kmeans(dense, ghost_ratio, seed)
        dense.train(was_training[entry.name])
        layer = build_ghost_layer(
            dense, fit, ghost_ratio=ghost_ratio, max_shift=max_shift, shift_scope=shift_scope
        )
        replace_module(converted, dense, layer)
        reports.append(_layer_report(entry, dense, layer, fit, macs_unit))
        if progress is not None:
            progress(done, len(chosen), entry.name)

    for name, module in converted.named_modules():
        module.training = was_training.get(name, module.training)
    report = ConversionReport(
        method=method,
        settings={
            "ghost_ratio": ghost_ratio,
            "max_shift": max_shift,
            "shift_scope": shift_scope,
            "seed": seed,
        },
        layers=tuple(reports),
        skipped=tuple(skipped),
        parameters_before=_parameters(model),
        parameters_after=_parameters(converted),
        macs_before=_macs(network, {}, macs_unit),
        macs_after=_macs(network, {r.name: len(r.intrinsic) for r in reports}, macs_unit),
        macs_for=macs_for,
        seconds=time.perf_counter() - started,
    )
    if isinstance(converted, SRModel):
        converted.metadata = {**converted.metadata, "report": report.to_json()}
    return converted, report


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``model`` has ``old``, which may be under several names."""
    places = [n for n, m in model.named_modules(remove_duplicate=False) if m is old]
    for place in places:
        parent, _, child = place.rpartition(".")
        setattr(model.get_submodule(parent), child, new)


def _check_arguments(ghost_ratio: float, method: str, max_shift: int, shift_scope: str) -> None:
    if not 0 <= ghost_ratio < 1:
        raise InputError(f"ghost_ratio: found {ghost_ratio}; 0 <= ghost_ratio < 1 is allowed")
    if method not in METHODS:
        raise InputError(f"method: found {method!r}; allowed are {', '.join(METHODS)}")
    if isinstance(max_shift, bool) or max_shift not in range(MAX_SHIFT_LIMIT + 1):
        raise InputError(f"max_shift: found {max_shift}; 0 to {MAX_SHIFT_LIMIT} is allowed")
    if shift_scope not in ("channel", "layer"):
        raise InputError(f"shift_scope: found {shift_scope!r}; allowed are channel, layer")


def _macs_unit(model: nn.Module, example: Tensor) -> tuple[Fraction, str]:
    """Return the factor from the example's size to the picture that MACs are counted for."""
    height, width = example.shape[-2:]
    if not isinstance(model, SRModel):
        return Fraction(1), f"input of {width} x {height}"
    enlargement = 1 if model.input_upscaled else model.scale
    return Fraction(_HR_PIXELS, enlargement**2 * height * width), f"x{model.scale} to 1280 x 720"


def _macs(network: Trace, computed: dict[str, int], unit: Fraction) -> int:
    total = 0
    for entry in network.called:
        module = entry.module
        dense = (
            module.intrinsic_channels if isinstance(module, GhostConv2d) else module.out_channels
        )
        total += entry.macs(computed.get(entry.name, dense))
    return round(total * unit)


def _layer_report(
    entry: TracedConvolution, dense: nn.Conv2d, layer: GhostConv2d, fit: GhostFit, unit: Fraction
) -> LayerReport:
    table = fit.table
    shifts: dict[str, int] = {}
    for dy, dx in table.shift.tolist():
        shifts[f"{dy},{dx}"] = shifts.get(f"{dy},{dx}", 0) + 1
    error = fit.relative_error
    dead = torch.nonzero(dense.weight.detach().flatten(1).abs().amax(1) == 0).flatten()
    return LayerReport(
        name=entry.name,
        uses=entry.uses,
        out_channels=dense.out_channels,
        intrinsic=table.intrinsic.tolist(),
        source=table.intrinsic[table.source].tolist(),
        shifts=dict(sorted(shifts.items())),
        relative_error=error if error == error else None,
        dead=dead.tolist(),
        parameters_before=_parameters(dense),
        parameters_after=_parameters(layer),
        macs_before=round(entry.macs(dense.out_channels) * unit),
        macs_after=round(entry.macs(layer.intrinsic_channels) * unit),
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for n, p in module.named_parameters() if n.rpartition(".")[2] != "logits")
