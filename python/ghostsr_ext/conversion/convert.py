"""Turning a pretrained network into a GhostSR network."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.calibration import GhostSettings, Progress, calibrate
from ghostsr_ext.conversion.filters import fit_filters
from ghostsr_ext.conversion.kmeans import fit_kmeans
from ghostsr_ext.conversion.pictures import Calibration, calibration_inputs
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.report import ConversionReport, LayerReport, SkippedLayer
from ghostsr_ext.conversion.selection import LayerPredicate, select_layers, too_few_channels
from ghostsr_ext.conversion.tables import GhostFit, build_ghost_layer
from ghostsr_ext.conversion.tracing import Trace, TracedConvolution, example_input, trace
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import MAX_SHIFT_LIMIT, GhostConv2d, ShiftScope

Method = Literal["kmeans", "filters", "calibrated"]
METHODS: tuple[str, ...] = get_args(Method)

Model = TypeVar("Model", bound=nn.Module)

_HR_PIXELS = 1280 * 720


def convert(
    model: Model,
    ghost_ratio: float = 0.5,
    *,
    method: Method | None = None,
    calibration: Calibration | None = None,
    layers: Sequence[str] | LayerPredicate | None = None,
    max_shift: int = 1,
    shift_scope: ShiftScope = "channel",
    affine: bool = False,
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
        method: ``"kmeans"``, the paper's clustering of filters, which needs training afterwards;
            ``"filters"``, filters approximated by shifted ones, without pictures; or
            ``"calibrated"``, every layer fitted to the dense network's feature maps on pictures.
            None is "calibrated" where pictures are given, else "kmeans".
        calibration: Pictures for "calibrated", a folder or files (BSD or DIV2K, say; no
            high-resolution originals are needed), or inputs of the network [N, C, H, W].
        layers: Names of convolutions, or a predicate that takes a name and a convolution. None
            takes what an ``SRModel`` declares; in any other network all convolutions but the first,
            the last and those whose output is enlarged.
        max_shift: Largest shift d that the ghost layers allow, 0 to 7.
        shift_scope: Whether each ghost has its own shift or all ghosts of a layer have one.
        affine: Whether ghosts get a gain and a bias of their own, which the paper's have not; not
            for "kmeans".
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
    if method is None:
        method = "kmeans" if calibration is None else "calibrated"
    settings = GhostSettings(max_shift, shift_scope, affine)
    _check_arguments(ghost_ratio, method, settings)
    converted = copy.deepcopy(model)
    was_training = {name: module.training for name, module in converted.named_modules()}
    converted.eval()
    inputs = _inputs(converted, method, calibration, seed)
    if example is None:
        example = example_input(converted) if inputs is None else inputs[:1]
    network = trace(converted, example)
    chosen, skipped = _choose(converted, network, layers, ghost_ratio)
    ratios = {entry.name: ghost_ratio for entry in chosen}

    if inputs is None:
        results = _convert_filters(converted, chosen, ratios, method, settings, seed, progress)
    else:
        results = calibrate(converted, chosen, ratios, inputs, settings, progress)
    for name, module in converted.named_modules():
        module.training = was_training.get(name, module.training)

    macs_unit, macs_for = _macs_unit(converted, example)
    reports = tuple(_layer_report(entry, *results[entry.name], macs_unit) for entry in chosen)
    report = ConversionReport(
        method=method,
        settings={
            "ghost_ratio": ghost_ratio,
            "max_shift": max_shift,
            "shift_scope": shift_scope,
            "affine": affine,
            "seed": seed,
            "calibration_inputs": None if inputs is None else list(inputs.shape),
        },
        layers=reports,
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


def _inputs(
    model: nn.Module, method: str, calibration: Calibration | None, seed: int
) -> Tensor | None:
    if method != "calibrated":
        return None
    if calibration is None:
        raise InputError('calibration: method "calibrated" needs pictures')
    return calibration_inputs(model, calibration, seed=seed)


def _choose(
    model: nn.Module,
    network: Trace,
    layers: Sequence[str] | LayerPredicate | None,
    ghost_ratio: float,
) -> tuple[list[TracedConvolution], list[SkippedLayer]]:
    selected, skipped = select_layers(model, network, layers)
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
    return chosen, skipped


def _convert_filters(
    model: nn.Module,
    layers: Sequence[TracedConvolution],
    ratios: Mapping[str, float],
    method: str,
    settings: GhostSettings,
    seed: int,
    progress: Progress | None,
) -> dict[str, tuple[GhostConv2d, GhostFit]]:
    results = {}
    for done, entry in enumerate(layers, start=1):
        dense, ratio = entry.module, ratios[entry.name]
        assert isinstance(dense, nn.Conv2d)
        if method == "kmeans":
            fit = fit_kmeans(dense, ratio, seed)
        else:
            fit = fit_filters(
                dense,
                ratio,
                max_shift=settings.max_shift,
                shift_scope=settings.shift_scope,
                affine=settings.affine,
            )
        layer = build_ghost_layer(
            dense,
            fit,
            ghost_ratio=ratio,
            max_shift=settings.max_shift,
            shift_scope=settings.shift_scope,
        )
        replace_module(model, dense, layer)
        results[entry.name] = (layer, fit)
        if progress is not None:
            progress(done, len(layers), entry.name)
    return results


def _check_arguments(ghost_ratio: float, method: str, settings: GhostSettings) -> None:
    max_shift, shift_scope = settings.max_shift, settings.shift_scope
    if not 0 <= ghost_ratio < 1:
        raise InputError(f"ghost_ratio: found {ghost_ratio}; 0 <= ghost_ratio < 1 is allowed")
    if method not in METHODS:
        raise InputError(f"method: found {method!r}; allowed are {', '.join(METHODS)}")
    if isinstance(max_shift, bool) or max_shift not in range(MAX_SHIFT_LIMIT + 1):
        raise InputError(f"max_shift: found {max_shift}; 0 to {MAX_SHIFT_LIMIT} is allowed")
    if shift_scope not in ("channel", "layer"):
        raise InputError(f"shift_scope: found {shift_scope!r}; allowed are channel, layer")
    if settings.affine and method == "kmeans":
        raise InputError('affine: method "kmeans" copies filters and has no gains')


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
    entry: TracedConvolution, layer: GhostConv2d, fit: GhostFit, unit: Fraction
) -> LayerReport:
    dense, table = entry.module, fit.table
    assert isinstance(dense, nn.Conv2d)
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
