"""Turning a pretrained network into a GhostSR network."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeVar, get_args

from torch import Tensor, nn

from ghostsr_ext.conversion.accounting import (
    count_parameters,
    depthwise_ratio,
    layer_report,
    macs_unit,
    pruned_report,
    total_macs,
)
from ghostsr_ext.conversion.budget import RATIOS, ratios_by_budget
from ghostsr_ext.conversion.distillation import PolishReport, polish
from ghostsr_ext.conversion.methods import Job, convert_layers, layers_between
from ghostsr_ext.conversion.pictures import Calibration, calibration_inputs
from ghostsr_ext.conversion.pruning import prune
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.report import ConversionReport, SkippedLayer
from ghostsr_ext.conversion.selection import LayerPredicate, select_layers, too_few_channels
from ghostsr_ext.conversion.settings import GhostSettings, Progress
from ghostsr_ext.conversion.tracing import Trace, TracedConvolution, example_input, trace
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import MAX_SHIFT_LIMIT, GhostConv2d, ShiftScope

Method = Literal["kmeans", "filters", "calibrated", "prune"]
METHODS: tuple[str, ...] = get_args(Method)

GhostOperation = Literal["shift", "depthwise"]

Model = TypeVar("Model", bound=nn.Module)

_POLISH_CROPS = 96
_FINISH_STEPS = 60


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
    ghost_op: GhostOperation = "shift",
    seed: int = 0,
    target_macs: float | None = None,
    max_drop: float | None = None,
    polish_minutes: float | None = None,
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
            ``"calibrated"``, every layer fitted to the dense network's feature maps on pictures,
            then all of them together by a short polish; convolutions that stay dense between
            converted ones get new weights too, and the report names them as ``refitted``.
            ``"prune"``, for comparison: filters are removed, the least L1 norm first, down to the
            same multiply-adds.
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
        ghost_op: ``"shift"``, or ``"depthwise"`` for comparison: GhostNet's depthwise convolutions
            of k = 2 * max_shift + 1, at the same multiply-adds, so with fewer intrinsic channels;
            they start as shifts and are trained by the polish.
        seed: Of what is random.
        target_macs: Part of the network's multiply-adds to keep, in (0, 1). Each layer then gets a
            ratio of its own, 0 to 0.75, the higher the less its conversion alone changes the output
            on the calibration pictures; ``ghost_ratio`` counts for nothing.
        max_drop: Instead of ``target_macs``, the PSNR that may be lost on crops of the calibration
            pictures, in dB; the fewest multiply-adds that keep to it before any polish are sought.
        polish_minutes: Time to spend on training all convolutions of the converted network, end to
            end, to give the dense one's output on the calibration pictures, shifts fixed; see
            ``polish``. By default 60 steps of it end a "calibrated" conversion; 0 is for none.
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
    _check_arguments(ghost_ratio, method, settings, ghost_op, polish_minutes)
    _check_budget(target_macs, max_drop, calibration, method)
    converted = copy.deepcopy(model)
    was_training = {name: module.training for name, module in converted.named_modules()}
    converted.eval()
    inputs = _inputs(converted, method, calibration, seed, bool(polish_minutes))
    if example is None:
        example = example_input(converted) if inputs is None else inputs[:1]
    network = trace(converted, example)
    job = Job(converted, network, method, settings, inputs, seed, progress)
    by_budget = target_macs is not None or max_drop is not None
    highest = RATIOS[-1] if by_budget else ghost_ratio
    chosen, skipped = _choose(converted, network, layers, highest)
    ratios = {entry.name: ghost_ratio for entry in chosen}
    if by_budget:
        assert calibration is not None
        ratios = ratios_by_budget(job, chosen, target_macs, max_drop, calibration)
        spared = [entry.name for entry in chosen if not ratios[entry.name]]
        skipped.extend(SkippedLayer(name, "the budget does not need it") for name in spared)
        chosen = [entry for entry in chosen if ratios[entry.name]]
    unit, macs_for = macs_unit(converted, example)
    replaced: dict[str, nn.Module] = {}
    if method == "prune":
        pruned = prune(converted, network, chosen, ghost_ratio, example, inputs)
        replaced.update({name: layer for name, (layer, _) in pruned.items()})
        reports = [
            pruned_report(entry, *pruned[entry.name], unit)
            for entry in network.called
            if entry.name in pruned
        ]
    else:
        if ghost_op == "depthwise":
            size = 2 * max_shift + 1
            ratios = {
                entry.name: depthwise_ratio(_dense(entry), ratios[entry.name], size)
                for entry in chosen
            }
        results = convert_layers(job, converted, chosen, ratios)
        reports = []
        for entry in chosen:
            ghost, fit = results[entry.name]
            layer: GhostConv2d | DepthwiseGhostConv2d = ghost
            if ghost_op == "depthwise":
                layer = DepthwiseGhostConv2d.from_shifts(ghost)
                replace_module(converted, ghost, layer)
            replaced[entry.name] = layer
            reports.append(layer_report(entry, layer, fit, unit))
    extra: dict[str, Any] = {}
    if method == "calibrated":
        extra["refitted"] = [entry.name for entry in layers_between(network, chosen)]
    polished = _polish(job, model, calibration, polish_minutes)
    if polished is not None:
        extra["polish"] = asdict(polished)
    for name, module in converted.named_modules():
        module.training = was_training.get(name, module.training)

    report = ConversionReport(
        method=method,
        settings={
            "ghost_ratio": None if by_budget else ghost_ratio,
            "target_macs": target_macs,
            "max_drop": max_drop,
            "ratios": ratios if by_budget else None,
            "max_shift": max_shift,
            "shift_scope": shift_scope,
            "affine": affine,
            "ghost_op": ghost_op,
            "seed": seed,
            "calibration_inputs": None if inputs is None else list(inputs.shape),
        },
        layers=tuple(reports),
        skipped=tuple(skipped),
        parameters_before=count_parameters(model),
        parameters_after=count_parameters(converted),
        macs_before=total_macs(network, {}, unit),
        macs_after=total_macs(network, replaced, unit),
        macs_for=macs_for,
        seconds=time.perf_counter() - started,
        extra=extra,
    )
    if isinstance(converted, SRModel):
        converted.metadata = {**converted.metadata, "report": _untimed(report.to_json())}
    return converted, report


def _untimed(values: dict[str, Any]) -> dict[str, Any]:
    """Leave times out, so that the same conversion gives the same file."""
    return {
        key: _untimed(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key != "seconds"
    }


def _polish(
    job: Job, dense: nn.Module, calibration: Calibration | None, minutes: float | None
) -> PolishReport | None:
    converted, inputs, seed = job.model, job.inputs, job.seed

    def percent(done: float) -> None:
        if job.progress is not None:
            job.progress(int(100 * done), 100, "training end to end")

    if minutes:
        assert calibration is not None
        crops = calibration_inputs(converted, calibration, crops=_POLISH_CROPS, seed=seed + 1)
        return polish(converted, dense, crops, minutes=minutes, seed=seed, progress=percent)
    trainable = any(parameter.requires_grad for parameter in converted.parameters())
    if minutes is None and inputs is not None and len(inputs) > 1 and trainable:
        return polish(converted, dense, inputs, steps=_FINISH_STEPS, seed=seed, progress=percent)
    return None


def _inputs(
    model: nn.Module, method: str, calibration: Calibration | None, seed: int, polishing: bool
) -> Tensor | None:
    if method == "prune" and calibration is not None:
        return calibration_inputs(model, calibration, seed=seed)
    if method != "calibrated":
        if polishing and calibration is None:
            raise InputError("polish_minutes: a polish needs calibration pictures")
        return None
    if calibration is None:
        raise InputError('calibration: method "calibrated" needs pictures')
    return calibration_inputs(model, calibration, seed=seed)


def _dense(entry: TracedConvolution) -> nn.Conv2d:
    assert isinstance(entry.module, nn.Conv2d)
    return entry.module


def _choose(
    model: nn.Module,
    network: Trace,
    layers: Sequence[str] | LayerPredicate | None,
    ghost_ratio: float,
) -> tuple[list[TracedConvolution], list[SkippedLayer]]:
    selected, skipped = select_layers(model, network, layers)
    chosen: list[TracedConvolution] = []
    for entry in selected:
        reason = too_few_channels(_dense(entry), ghost_ratio)
        if reason is None:
            chosen.append(entry)
        else:
            skipped.append(SkippedLayer(entry.name, reason))
    if ghost_ratio and not chosen:
        reasons = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped[:5])
        raise InputError(f"model: no layer can be converted ({reasons or 'none is selected'})")
    return chosen, skipped


def _check_budget(
    target_macs: float | None,
    max_drop: float | None,
    calibration: Calibration | None,
    method: str,
) -> None:
    if target_macs is None and max_drop is None:
        return
    if method == "prune":
        raise InputError('target_macs, max_drop: method "prune" takes one ghost_ratio')
    if target_macs is not None and max_drop is not None:
        raise InputError("target_macs, max_drop: found both; one of them is allowed")
    if target_macs is not None and not 0 < target_macs < 1:
        raise InputError(f"target_macs: found {target_macs}; 0 < target_macs < 1 is allowed")
    if max_drop is not None and not 0 < max_drop < math.inf:
        raise InputError(f"max_drop: found {max_drop}; a positive number of dB is allowed")
    if calibration is None:
        raise InputError("target_macs, max_drop: sensitivity is measured on calibration pictures")
    if max_drop is not None and isinstance(calibration, Tensor):
        raise InputError("max_drop: PSNR needs originals; pass pictures as calibration")


def _check_arguments(
    ghost_ratio: float,
    method: str,
    settings: GhostSettings,
    ghost_op: str,
    polish_minutes: float | None,
) -> None:
    max_shift, shift_scope = settings.max_shift, settings.shift_scope
    if not 0 <= ghost_ratio < 1:
        raise InputError(f"ghost_ratio: found {ghost_ratio}; 0 <= ghost_ratio < 1 is allowed")
    if method not in METHODS:
        raise InputError(f"method: found {method!r}; allowed are {', '.join(METHODS)}")
    if isinstance(max_shift, bool) or max_shift not in range(MAX_SHIFT_LIMIT + 1):
        raise InputError(f"max_shift: found {max_shift}; 0 to {MAX_SHIFT_LIMIT} is allowed")
    if shift_scope not in ("channel", "layer"):
        raise InputError(f"shift_scope: found {shift_scope!r}; allowed are channel, layer")
    if polish_minutes is not None and not 0 <= polish_minutes < math.inf:
        raise InputError(f"polish_minutes: found {polish_minutes}; minutes from 0 are allowed")
    if settings.affine and method in ("kmeans", "prune"):
        raise InputError(f'affine: method "{method}" has no gains')
    if ghost_op not in ("shift", "depthwise"):
        raise InputError(f"ghost_op: found {ghost_op!r}; allowed are shift, depthwise")
    if ghost_op == "depthwise" and method == "prune":
        raise InputError('ghost_op: method "prune" makes no ghosts')
