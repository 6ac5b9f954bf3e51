"""Turning a pretrained network into a GhostSR network."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.accounting import (
    count_parameters,
    counted_picture,
    depthwise_ratio,
    layer_report,
    pruned_report,
)
from ghostsr_ext.conversion.budget import RATIOS, ratios_by_budget
from ghostsr_ext.conversion.conversion_report import ConversionReport, SkippedLayer
from ghostsr_ext.conversion.convolutions import TracedConvolution, example_input, trace
from ghostsr_ext.conversion.distillation import PolishReport, polish
from ghostsr_ext.conversion.methods import ConversionJob, convert_layers
from ghostsr_ext.conversion.options import (
    GhostOperation,
    Method,
    Options,
    Unsuitable,
    check_network,
    check_options,
)
from ghostsr_ext.conversion.outcome import Outcome, output_error
from ghostsr_ext.conversion.picture_format import PictureFormat, picture_format
from ghostsr_ext.conversion.pictures import Calibration, calibration_inputs
from ghostsr_ext.conversion.polish_checkpoint import PolishCheckpoint
from ghostsr_ext.conversion.pruning import prune
from ghostsr_ext.conversion.recipe import conversion_recipe
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.selection import (
    LayerPredicate,
    Rules,
    select_layers,
    too_few_channels,
)
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.errors import InputError
from ghostsr_ext.fusion import fuse_in_place
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d, ShiftScope
from ghostsr_ext.progress import ProgressCallback

Model = TypeVar("Model", bound=nn.Module)

_POLISH_CROPS, _FURTHER_CROPS = 96, 4
_FINISH_STEPS = 60


@contextmanager
def _tables_on_cpu() -> Iterator[None]:
    """Whatever device torch gives to new tensors."""
    with torch.device("cpu"):
        yield


@_tables_on_cpu()
@torch.inference_mode(False)
def convert(
    model: Model,
    ghost_ratio: float = 0.5,
    *,
    method: Method | None = None,
    calibration: Calibration | None = None,
    layers: Sequence[str] | LayerPredicate | None = None,
    unsuitable: Unsuitable = "leave",
    max_shift: int = 1,
    shift_scope: ShiftScope = "channel",
    affine: bool = False,
    ghost_op: GhostOperation = "shift",
    seed: int = 0,
    target_macs: float | None = None,
    max_drop: float | None = None,
    polish_minutes: float | None = None,
    polish_steps: int | None = None,
    scale: int | None = None,
    value_range: float | None = None,
    example: Tensor | None = None,
    progress: ProgressCallback | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    notify: Callable[[str], None] | None = None,
) -> tuple[Model, ConversionReport]:
    """Return a copy of ``model`` with ghost layers in the place of dense convolutions.

    The result is fused (see :func:`ghostsr_ext.fusion.fuse`) and its shifts are frozen, so it is
    ready to run; ``ghostsr_ext.nn.learn_shifts`` makes them trainable. The order of the channels is
    kept, so nothing else in the network changes.

    Args:
        model: A network. It is not changed. The copy of an ``SRModel`` has the report in its
            ``metadata``.
        ghost_ratio: The part of each layer's outputs that is made by shifting, in [0, 1).
        method: How the channels are chosen. ``"kmeans"`` is the paper's clustering of filters,
            which needs training afterwards. ``"filters"`` approximates filters by shifted ones,
            without pictures. ``"calibrated"`` fits every layer to the dense network's feature maps
            on pictures, then trains all of them together by a short polish. Convolutions that stay
            dense between converted ones get new weights too, and the report names them as
            ``refitted``. ``"prune"`` is for comparison: it removes filters, the least L1 norm
            first, down to the same multiply-adds. None is "calibrated" where pictures are given,
            else "kmeans".
        calibration: The pictures for "calibrated" and "prune": a folder or files (BSD or DIV2K,
            say; no high-resolution originals are needed), or inputs of the network [N, C, H, W].
        layers: The names of convolutions to convert, or a predicate that takes a name and a
            convolution. None takes what an ``SRModel`` declares; in any other network it takes all
            convolutions but the first, the last and those whose output is enlarged.
        unsuitable: ``"leave"`` leaves some layers dense, and as they are, whatever ``layers`` says:
            those whose map is too small to shift (in channel attention, say), whose filters have
            more weights than the calibration has positions for, or that take next to none of the
            multiply-adds. The report names them. ``"convert"`` converts them all the same.
        max_shift: The largest shift d that the ghost layers allow in pixels, 0 to 7.
        shift_scope: Whether each ghost has its own shift or all ghosts of a layer have one.
        affine: Whether ghosts get a gain and a bias of their own, which the paper's have not. It is
            not allowed for "kmeans".
        ghost_op: ``"shift"``, or ``"depthwise"`` for comparison: GhostNet's depthwise convolutions
            of k = 2 * max_shift + 1. They have the same multiply-adds, so fewer intrinsic channels.
            They start as shifts and are trained by the polish.
        seed: Seed of all random choices.
        target_macs: The part of the network's multiply-adds to keep, in (0, 1), linear layers and
            layers that stay dense included. Each layer then gets a ratio of its own, 0 to 0.75, the
            higher the less its conversion alone changes the output on the calibration pictures.
            ``ghost_ratio`` is then ignored.
        max_drop: The PSNR that may be lost on crops of the calibration pictures, in dB, instead of
            ``target_macs``. The fewest multiply-adds that keep to it before any polish are sought.
        polish_minutes: The wall time to spend on training all convolutions of the converted
            network, end to end, to give the dense one's output on the calibration pictures, with
            fixed shifts: see ``polish``. By default 60 steps of it end a "calibrated" conversion. 0
            leaves them out.
        polish_steps: The number of steps to take, the same on every machine, instead of
            ``polish_minutes``.
        scale: What a network that is no ``SRModel`` enlarges by. It is needed only where the input
            is enlarged already; else it is found out.
        value_range: The value of white of a network that is no ``SRModel``. By default it is found
            out.
        example: An input of the network [N, C, H, W], on which the network is run to find its
            layers. By default it is noise of 24 x 24 pixels.
        progress: Called after each layer and each step with the number that is done, the number in
            all and what was done.
        checkpoint: A file to keep how far the polish is, every three minutes; None for none. Where
            it exists, the same conversion goes on from there, with as many threads on the same
            machine to the same bits as if it had not been stopped; layers are fitted again. It
            stays: remove it once the network is saved.
        overwrite: Whether a checkpoint of another conversion may be replaced.
        notify: Called with a line where a polish goes on from a checkpoint, or begins in the place
            of another one.

    Returns:
        The converted network and the report.

    Raises:
        InputError: An argument is outside its domain, the network cannot be run or has weights that
            are NaN or infinite, no layer could be converted, the converted network cannot be run,
            or the checkpoint is damaged or of another conversion; the message says why.
    """
    started = time.perf_counter()
    check_network(model)
    options = Options(
        ghost_ratio,
        method or ("kmeans" if calibration is None else "calibrated"),
        GhostSettings(max_shift, shift_scope, affine),
        ghost_op,
        unsuitable,
        seed,
        target_macs,
        max_drop,
        polish_minutes,
        polish_steps,
    )
    check_options(options, calibration)
    converted = copy.deepcopy(model)
    was_training = {name: module.training for name, module in converted.named_modules()}
    converted.eval()
    form = None
    if calibration is not None and not isinstance(calibration, Tensor):
        form = picture_format(converted, scale=scale, value_range=value_range)
    kept = None
    if checkpoint is not None:
        recipe = partial(conversion_recipe, model, options, calibration, layers, form, example)
        kept = PolishCheckpoint(Path(checkpoint), recipe, overwrite=overwrite, notify=notify)
    inputs = _inputs(converted, options, calibration, form)
    if example is None:
        example = example_input(converted) if inputs is None else inputs[:1]
    network = trace(converted, example)
    picture = counted_picture(converted, example, scale)
    macs = picture.macs(converted)
    fitted = None if inputs is None else len(inputs) * _area(inputs) / _area(example)
    job = ConversionJob(
        converted,
        network,
        macs,
        options.method,
        options.settings,
        inputs,
        seed,
        progress,
        Rules(max_shift, macs, fitted) if unsuitable == "leave" else None,
        form,
    )
    chosen, skipped, ratios = _choose_ratios(job, options, layers, calibration)
    outcome = _replace_layers(job, options, chosen, ratios, example)
    outcome.polished = _polish(job, model, options, calibration, kept)
    # Before it is traced, so that what cannot run is blamed on the conversion.
    output_error(model, converted, example)
    _fuse(converted, example)
    outcome.error = output_error(model, converted, example)
    macs_after = picture.macs(converted)
    for name, module in converted.named_modules():
        module.training = was_training.get(name, module.training)
    report = ConversionReport(
        method=options.method,
        settings={
            **options.described(),
            "ratios": ratios if options.by_budget else None,
            "calibration_inputs": None if inputs is None else list(inputs.shape),
        },
        layers=outcome.layers(macs, macs_after),
        skipped=tuple(skipped),
        parameters_before=count_parameters(model),
        parameters_after=count_parameters(converted),
        macs_before=sum(macs.values()),
        macs_after=sum(macs_after.values()),
        macs_for=picture.name,
        seconds=time.perf_counter() - started,
        needs_training=options.method in ("kmeans", "filters") and outcome.polished is None,
        output_error=outcome.error,
        warnings=outcome.warnings(),
        extra=outcome.extra(),
    )
    if isinstance(converted, SRModel):
        converted.metadata = {**converted.metadata, "report": _untimed(report.to_json())}
    return converted, report


def _fuse(converted: nn.Module, example: Tensor) -> None:
    """Give networks whose classes are not the package's its layers, too."""
    plain = any(type(module) is nn.Conv2d for module in converted.modules())
    if plain or not isinstance(converted, SRModel):
        fuse_in_place(converted, example)


def _untimed(values: dict[str, Any]) -> dict[str, Any]:
    """Leave times out, so that the same conversion gives the same file."""
    return {
        key: _untimed(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key != "seconds"
    }


def _choose_ratios(
    job: ConversionJob,
    options: Options,
    layers: Sequence[str] | LayerPredicate | None,
    calibration: Calibration | None,
) -> tuple[list[TracedConvolution], list[SkippedLayer], dict[str, float]]:
    """Return the layers to convert, those that stay dense, and the ratio of each."""
    if not options.by_budget:
        chosen, skipped = _choose(job, layers, options.ghost_ratio)
        return chosen, skipped, {entry.name: options.ghost_ratio for entry in chosen}
    assert calibration is not None
    chosen, skipped = _choose(job, layers, RATIOS[-1])
    ratios = ratios_by_budget(job, chosen, options.target_macs, options.max_drop, calibration)
    spared = [entry.name for entry in chosen if not ratios[entry.name]]
    skipped.extend(SkippedLayer(name, "the budget does not need it") for name in spared)
    return [entry for entry in chosen if ratios[entry.name]], skipped, ratios


def _replace_layers(
    job: ConversionJob,
    options: Options,
    chosen: Sequence[TracedConvolution],
    ratios: Mapping[str, float],
    example: Tensor,
) -> Outcome:
    if options.method == "prune":
        return _prune(job, chosen, options.ghost_ratio, example)
    return _make_ghosts(job, chosen, ratios, options.ghost_op)


def _prune(
    job: ConversionJob, chosen: Sequence[TracedConvolution], ghost_ratio: float, example: Tensor
) -> Outcome:
    try:
        pruned = prune(job.model, job.network, chosen, ghost_ratio, job.macs, example, job.inputs)
    except RuntimeError as error:
        # Something outside of the convolutions has an entry for each channel.
        reason = str(error).splitlines()[0]
        raise InputError(
            f"prune: the network does not run with fewer channels ({reason})"
        ) from error
    return Outcome(
        {
            entry.name: partial(pruned_report, entry, *pruned[entry.name])
            for entry in job.network.called
            if entry.name in pruned
        }
    )


def _make_ghosts(
    job: ConversionJob,
    chosen: Sequence[TracedConvolution],
    ratios: Mapping[str, float],
    ghost_op: GhostOperation,
) -> Outcome:
    depthwise = ghost_op == "depthwise"
    if depthwise:
        size = 2 * job.settings.max_shift + 1
        ratios = {
            entry.name: depthwise_ratio(_dense(entry), ratios[entry.name], size) for entry in chosen
        }
    results, refitted = convert_layers(job, job.model, chosen, ratios)
    reports = {}
    for entry in chosen:
        ghost, fit = results[entry.name]
        layer: GhostConv2d | DepthwiseGhostConv2d = ghost
        if depthwise:
            layer = DepthwiseGhostConv2d.from_shifts(ghost)
            replace_module(job.model, ghost, layer)
        reports[entry.name] = partial(layer_report, entry, layer, fit)
    return Outcome(reports, refitted if job.method == "calibrated" else None)


def _polish(
    job: ConversionJob,
    dense: nn.Module,
    options: Options,
    calibration: Calibration | None,
    checkpoint: PolishCheckpoint | None,
) -> PolishReport | None:
    converted, inputs, seed = job.model, job.inputs, job.seed
    minutes, steps = options.polish_minutes, options.polish_steps

    def percent(done: float) -> None:
        if job.progress is not None:
            job.progress(int(100 * done), 100, "training end to end")

    more = None
    if minutes or steps:
        assert calibration is not None
        crops = partial(calibration_inputs, converted, calibration, form=job.form)
        inputs = crops(crops=_POLISH_CROPS, seed=seed + 1)
        if not isinstance(calibration, Tensor):
            more = partial(_further_crops, crops, seed)
    else:
        trainable = any(parameter.requires_grad for parameter in converted.parameters())
        if not options.polishes_by_default or inputs is None or len(inputs) < 2 or not trainable:
            return None
        steps = _FINISH_STEPS
    return polish(
        converted,
        dense,
        inputs,
        minutes=minutes,
        steps=steps,
        seed=seed,
        progress=percent,
        more=more,
        checkpoint=checkpoint,
    )


def _further_crops(crops: Callable[..., Tensor], seed: int, number: int) -> Tensor:
    first = np.random.SeedSequence(seed).generate_state(1)[0]
    return crops(crops=_FURTHER_CROPS, seed=int(first) + number)


def _area(maps: Tensor) -> int:
    return maps.shape[-2] * maps.shape[-1]


def _inputs(
    model: nn.Module,
    options: Options,
    calibration: Calibration | None,
    form: PictureFormat | None,
) -> Tensor | None:
    if calibration is None or options.method not in ("calibrated", "prune"):
        return None
    return calibration_inputs(model, calibration, seed=options.seed, form=form)


def _dense(entry: TracedConvolution) -> nn.Conv2d:
    assert isinstance(entry.module, nn.Conv2d)
    return entry.module


def _choose(
    job: ConversionJob, layers: Sequence[str] | LayerPredicate | None, ghost_ratio: float
) -> tuple[list[TracedConvolution], list[SkippedLayer]]:
    selected, skipped = select_layers(job.model, job.network, layers, job.rules)
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
