"""Turning a pretrained network into a GhostSR network."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.accounting import (
    count_parameters,
    counted_picture,
    depthwise_ratio,
    layer_macs,
    layer_report,
    pruned_report,
)
from ghostsr_ext.conversion.budget import RATIOS, ratios_by_budget
from ghostsr_ext.conversion.distillation import PolishReport, polish
from ghostsr_ext.conversion.methods import Job, convert_layers
from ghostsr_ext.conversion.picture_format import PictureFormat, picture_format
from ghostsr_ext.conversion.pictures import Calibration, calibration_inputs
from ghostsr_ext.conversion.pruning import prune
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.report import ConversionReport, LayerReport, SkippedLayer
from ghostsr_ext.conversion.selection import (
    LayerPredicate,
    Rules,
    select_layers,
    too_few_channels,
)
from ghostsr_ext.conversion.settings import GhostSettings, Progress
from ghostsr_ext.conversion.tracing import (
    TracedConvolution,
    example_input,
    forward_arguments,
    trace,
)
from ghostsr_ext.depthwise import DepthwiseGhostConv2d
from ghostsr_ext.errors import InputError
from ghostsr_ext.fusion import fuse_in_place
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import MAX_SHIFT_LIMIT, GhostConv2d, ShiftScope

Method = Literal["kmeans", "filters", "calibrated", "prune"]
METHODS: tuple[str, ...] = get_args(Method)

GhostOperation = Literal["shift", "depthwise"]

Unsuitable = Literal["leave", "convert"]
UNSUITABLE: tuple[str, ...] = get_args(Unsuitable)

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class PolishLength:
    """How long a conversion polishes; a few steps by default.

    Attributes:
        minutes: Wall time, or None.
        steps: Steps, or None.
    """

    minutes: float | None
    steps: int | None

    @property
    def by_default(self) -> bool:
        """Whether nothing was said."""
        return self.minutes is None and self.steps is None


_POLISH_CROPS = 96
_FINISH_STEPS = 60
_WORSE_THAN_NOTHING = 1.0


@contextmanager
def _tables_on_cpu() -> Iterator[None]:
    """Whatever device torch gives to new tensors."""
    with torch.device("cpu"):
        yield


@_tables_on_cpu()
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
    progress: Progress | None = None,
) -> tuple[Model, ConversionReport]:
    """Return a copy of ``model`` with ghost layers in the place of dense convolutions.

    The result is fused (see :func:`ghostsr_ext.fusion.fuse`) and its shifts are frozen, so it is
    ready to run; ``ghostsr_ext.nn.learn_shifts``
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
        unsuitable: ``"leave"`` leaves layers dense, and as they are, whose map is too small to
            shift (in channel attention, say), whose filters have more weights than the calibration
            has positions for, or that take next to none of the multiply-adds, whatever ``layers``
            says; the report names them. ``"convert"`` converts them all the same.
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
        polish_steps: Instead of ``polish_minutes``, the number of steps, the same on any machine.
        scale: What a network that is no ``SRModel`` enlarges by, if its input is enlarged already;
            else it is found out.
        value_range: The value of white of such a network; found out by default.
        example: An input of the network, to find its layers by running it; by default noise of
            24 x 24 pixels.
        progress: Called after each layer.

    Returns:
        The converted network and the report.

    Raises:
        InputError: An argument is outside its domain, the network cannot be run or has weights that
            are NaN or infinite, no layer could be converted, or the converted network cannot be
            run; the message says why.
    """
    started = time.perf_counter()
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model: found {model!r}; a network is needed: ghostsr_ext.load_model reads files"
        )
    if method is None:
        method = "kmeans" if calibration is None else "calibrated"
    settings = GhostSettings(max_shift, shift_scope, affine)
    length = PolishLength(polish_minutes, polish_steps)
    _check_arguments(ghost_ratio, method, settings, ghost_op, unsuitable)
    _check_polish(length, calibration)
    _check_budget(target_macs, max_drop, calibration, method)
    converted = copy.deepcopy(model)
    was_training = {name: module.training for name, module in converted.named_modules()}
    converted.eval()
    form = None
    if calibration is not None and not isinstance(calibration, Tensor):
        form = picture_format(converted, scale=scale, value_range=value_range)
    inputs = _inputs(converted, method, calibration, seed, form)
    if example is None:
        example = example_input(converted) if inputs is None else inputs[:1]
    network = trace(converted, example)
    picture = counted_picture(converted, example, scale)
    macs = picture.macs(converted)
    fitted = None if inputs is None else len(inputs) * _area(inputs) / _area(example)
    rules = Rules(max_shift, macs, fitted) if unsuitable == "leave" else None
    job = Job(converted, network, method, settings, inputs, seed, progress, rules, form)
    by_budget = target_macs is not None or max_drop is not None
    chosen, skipped = _choose(job, layers, RATIOS[-1] if by_budget else ghost_ratio)
    ratios = {entry.name: ghost_ratio for entry in chosen}
    if by_budget:
        assert calibration is not None
        ratios = ratios_by_budget(job, chosen, target_macs, max_drop, calibration)
        spared = [entry.name for entry in chosen if not ratios[entry.name]]
        skipped.extend(SkippedLayer(name, "the budget does not need it") for name in spared)
        chosen = [entry for entry in chosen if ratios[entry.name]]
    if method == "prune":
        outcome = _prune(job, chosen, ghost_ratio, example)
    else:
        outcome = _make_ghosts(job, chosen, ratios, ghost_op)
    polished = _polish(job, model, calibration, length)
    _fuse(converted, example)
    error = _compare(model, converted, example)
    macs_after = picture.macs(converted)
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
            "unsuitable": unsuitable,
            "seed": seed,
            "calibration_inputs": None if inputs is None else list(inputs.shape),
        },
        layers=tuple(
            report((layer_macs(macs, name), layer_macs(macs_after, name)))
            for name, report in outcome.reports.items()
        ),
        skipped=tuple(skipped),
        parameters_before=count_parameters(model),
        parameters_after=count_parameters(converted),
        macs_before=sum(macs.values()),
        macs_after=sum(macs_after.values()),
        macs_for=picture.name,
        seconds=time.perf_counter() - started,
        needs_training=method in ("kmeans", "filters") and polished is None,
        output_error=error,
        extra={
            **({"refitted": outcome.refitted} if method == "calibrated" else {}),
            **({} if polished is None else {"polish": asdict(polished)}),
        },
    )
    report = replace(report, warnings=_warnings(report, polished))
    if isinstance(converted, SRModel):
        converted.metadata = {**converted.metadata, "report": _untimed(report.to_json())}
    return converted, report


def _fuse(converted: nn.Module, example: Tensor) -> None:
    """Let what the package did not write run on its layers, too."""
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


@dataclass
class _Outcome:
    """What became of the layers: reports that lack their multiply-adds, by name, in order."""

    reports: Mapping[str, Callable[[tuple[int, int]], LayerReport]]
    refitted: list[str] = field(default_factory=list)


def _prune(
    job: Job, chosen: Sequence[TracedConvolution], ghost_ratio: float, example: Tensor
) -> _Outcome:
    pruned = prune(job.model, job.network, chosen, ghost_ratio, example, job.inputs)
    return _Outcome(
        {
            entry.name: partial(pruned_report, entry, *pruned[entry.name])
            for entry in job.network.called
            if entry.name in pruned
        }
    )


def _make_ghosts(
    job: Job,
    chosen: Sequence[TracedConvolution],
    ratios: Mapping[str, float],
    ghost_op: GhostOperation,
) -> _Outcome:
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
    return _Outcome(reports, refitted)


def _polish(
    job: Job, dense: nn.Module, calibration: Calibration | None, length: PolishLength
) -> PolishReport | None:
    converted, inputs, seed = job.model, job.inputs, job.seed

    def percent(done: float) -> None:
        if job.progress is not None:
            job.progress(int(100 * done), 100, "training end to end")

    if length.minutes or length.steps:
        assert calibration is not None
        crops = calibration_inputs(
            converted, calibration, crops=_POLISH_CROPS, seed=seed + 1, form=job.form
        )
        return polish(
            converted,
            dense,
            crops,
            minutes=length.minutes,
            steps=length.steps,
            seed=seed,
            progress=percent,
        )
    trainable = any(parameter.requires_grad for parameter in converted.parameters())
    if length.by_default and inputs is not None and len(inputs) > 1 and trainable:
        return polish(converted, dense, inputs, steps=_FINISH_STEPS, seed=seed, progress=percent)
    return None


@torch.no_grad()
def _compare(dense: nn.Module, converted: nn.Module, example: Tensor) -> float | None:
    """Run both networks and return the squared difference over the variance of the dense output.

    Raises:
        InputError: The converted network cannot be run, or gives something else.
    """
    was_training = {module: module.training for module in dense.modules()}
    dense.eval()
    missed = energy = 0.0
    try:
        for arguments in forward_arguments(dense):
            wanted = dense(example.clone(), **arguments)
            try:
                found = converted(example.clone(), **arguments)
            except Exception as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"model: cannot be run once it is converted ({reason}); name the layers that "
                    "may be converted as layers"
                ) from error
            if not isinstance(wanted, Tensor):
                return None
            missed += float((found - wanted).double().square().sum())
            energy += float((wanted - wanted.mean()).double().square().sum())
    finally:
        for module, training in was_training.items():
            module.training = training
    if not math.isfinite(missed):
        raise InputError("model: gives values that are NaN or infinite once it is converted")
    return missed / energy if energy else None


def _warnings(report: ConversionReport, polished: PolishReport | None) -> tuple[str, ...]:
    found = []
    if report.method == "calibrated":
        bad = [
            f"{layer.name} ({layer.relative_error:.2g})"
            for layer in report.layers
            if (layer.relative_error or 0.0) > _WORSE_THAN_NOTHING
        ]
        if bad:
            found.append(
                "layers whose error is larger than the variance of what they give, before any "
                f"polish: {', '.join(bad)}; leave them dense, or lower the ratio"
            )
    if polished is not None and not polished.kept:
        found.append("the polish made nothing better and was undone")
    if report.output_error is not None and report.output_error > _WORSE_THAN_NOTHING:
        found.append(
            f"on the example the output's error is {report.output_error:.2g} times its variance"
        )
    return tuple(found)


def _area(maps: Tensor) -> int:
    return maps.shape[-2] * maps.shape[-1]


def _inputs(
    model: nn.Module,
    method: str,
    calibration: Calibration | None,
    seed: int,
    form: PictureFormat | None,
) -> Tensor | None:
    if method not in ("calibrated", "prune") or calibration is None:
        if method == "calibrated":
            raise InputError('calibration: method "calibrated" needs pictures')
        return None
    return calibration_inputs(model, calibration, seed=seed, form=form)


def _dense(entry: TracedConvolution) -> nn.Conv2d:
    assert isinstance(entry.module, nn.Conv2d)
    return entry.module


def _choose(
    job: Job, layers: Sequence[str] | LayerPredicate | None, ghost_ratio: float
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


def _check_polish(length: PolishLength, calibration: Calibration | None) -> None:
    minutes, steps = length.minutes, length.steps
    if minutes is not None and steps is not None:
        raise InputError("polish_minutes, polish_steps: found both; one of them is allowed")
    if minutes is not None and not 0 <= minutes < math.inf:
        raise InputError(f"polish_minutes: found {minutes}; minutes from 0 are allowed")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 0):
        raise InputError(f"polish_steps: found {steps!r}; whole numbers from 0 are allowed")
    if (minutes or steps) and calibration is None:
        name = "polish_minutes" if minutes else "polish_steps"
        raise InputError(f"{name}: a polish needs calibration pictures")


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
    unsuitable: str,
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
    if unsuitable not in UNSUITABLE:
        raise InputError(f"unsuitable: found {unsuitable!r}; allowed are {', '.join(UNSUITABLE)}")
    if settings.affine and method in ("kmeans", "prune"):
        raise InputError(f'affine: method "{method}" has no gains')
    if ghost_op not in ("shift", "depthwise"):
        raise InputError(f"ghost_op: found {ghost_op!r}; allowed are shift, depthwise")
    if ghost_op == "depthwise" and method == "prune":
        raise InputError('ghost_op: method "prune" makes no ghosts')
