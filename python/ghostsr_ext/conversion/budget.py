"""A ghost ratio for each layer, from a budget for the whole network."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.convolutions import TracedConvolution, forward_arguments
from ghostsr_ext.conversion.fitting import fit_statistics
from ghostsr_ext.conversion.methods import ConversionJob, convert_layers
from ghostsr_ext.conversion.pictures import Calibration, calibration_inputs, mean_psnr
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.conversion.statistics import Statistics, gather_statistics, run_surrounded
from ghostsr_ext.conversion.tables import build_ghost_layer
from ghostsr_ext.errors import InputError
from ghostsr_ext.nn import ghost_count

RATIOS = (0.25, 0.5, 0.75)
"""Ghost ratios that are tried for each layer."""

_SENSITIVITY_INPUTS = 8
_TRIALS = 5


@dataclass(frozen=True)
class Choice:
    """One ratio for one layer.

    Attributes:
        ratio: The ghost ratio.
        macs: Multiply-adds that the layer then has, for the picture that all are counted for.
        error: Squared difference of the network's output to the dense one's, with this layer alone
            converted.
    """

    ratio: float
    macs: int
    error: float


def ratios_by_budget(
    job: ConversionJob,
    layers: Sequence[TracedConvolution],
    target_macs: float | None,
    max_drop: float | None,
    calibration: Calibration,
) -> dict[str, float]:
    """Choose the ratio of every layer.

    Args:
        job: The conversion.
        layers: The layers that may be converted.
        target_macs: Part of the network's multiply-adds to keep; or None and
        max_drop: PSNR that may be lost on crops of the calibration pictures, in dB.
        calibration: Pictures; with ``target_macs`` inputs will do.

    Returns:
        The ratio of each layer, 0 where it stays dense.

    Raises:
        InputError: The budget cannot be met.
    """
    model = job.model
    if job.inputs is None:
        inputs = calibration_inputs(
            model, calibration, crops=_SENSITIVITY_INPUTS, seed=job.seed, form=job.form
        )
    else:
        inputs = job.inputs[:_SENSITIVITY_INPUTS]
    choices = measure_choices(job, layers, inputs)
    if target_macs is not None:
        return allot_ratios(choices, math.ceil(sum(job.macs.values()) * (1 - target_macs)))
    assert max_drop is not None

    def quality(network: nn.Module) -> float:
        return mean_psnr(network, calibration, seed=job.seed, form=job.form)

    reference = quality(model)
    good = dict.fromkeys(choices, 0.0)
    low, high = 0, sum(options[0].macs - options[-1].macs for options in choices.values())
    for _ in range(_TRIALS):
        to_save = (low + high) // 2
        ratios = allot_ratios(choices, to_save)
        trial = copy.deepcopy(model)
        convert_layers(job, trial, _found_in(trial, layers, ratios), ratios)
        if reference - quality(trial) <= max_drop:
            good, low = ratios, to_save
        else:
            high = to_save
    if not any(good.values()):
        raise InputError(f"max_drop: no conversion that was tried stays within {max_drop:g} dB")
    return good


def _found_in(
    model: nn.Module, layers: Sequence[TracedConvolution], ratios: Mapping[str, float]
) -> list[TracedConvolution]:
    """Return the entries of a copied network's layers that are to be converted."""
    found = []
    for entry in layers:
        module = model.get_submodule(entry.name)
        assert isinstance(module, nn.Conv2d)
        if ratios[entry.name]:
            found.append(replace(entry, module=module))
    return found


@torch.no_grad()
def measure_choices(
    job: ConversionJob, layers: Sequence[TracedConvolution], inputs: Tensor
) -> dict[str, list[Choice]]:
    """Convert every layer alone, at every ratio, and measure what it costs the picture.

    Args:
        job: The conversion; its network is the same afterwards.
        layers: The layers to try.
        inputs: Inputs of the network [N, C, H, W].

    Returns:
        For each layer, by name, the choices in the order of their ratios, dense first.
    """
    model, settings = job.model, job.settings
    passes = forward_arguments(model)
    wanted = [model(inputs, **arguments) for arguments in passes]
    found: dict[str, list[Choice]] = {}
    for done, entry in enumerate(layers, start=1):
        dense = entry.module
        assert isinstance(dense, nn.Conv2d)
        statistics = _statistics(model, dense, inputs, settings.max_shift)
        found[entry.name] = [Choice(0.0, job.macs.get(entry.name, 0), 0.0)]
        for ratio in RATIOS:
            ghosts = ghost_count(dense.out_channels, ratio, dense.groups)
            if not ghosts:
                continue
            fit = fit_statistics(dense, statistics, ratio, settings)
            ghost = build_ghost_layer(dense, fit, ratio, settings)
            replace_module(model, dense, ghost)
            error = sum(
                float((model(inputs, **arguments) - target).double().square().sum())
                for arguments, target in zip(passes, wanted, strict=True)
            )
            replace_module(model, ghost, dense)
            part = (dense.out_channels - ghosts) / dense.out_channels
            macs = round(found[entry.name][0].macs * part)
            found[entry.name].append(Choice(ratio, macs, error))
        if job.progress is not None:
            job.progress(done, len(layers), f"sensitivity of {entry.name}")
    return found


def allot_ratios(choices: Mapping[str, Sequence[Choice]], to_save: int) -> dict[str, float]:
    """Choose a ratio for every layer so that ``to_save`` multiply-adds are saved at least error.

    Errors of layers are taken to add up. The step to a higher ratio that costs the least error for
    each multiply-add it saves is taken first; a layer may take several steps of the grid at once.

    Args:
        choices: The choices of each layer, dense first, by ascending ratio.
        to_save: Multiply-adds to save.

    Returns:
        The ratio of each layer, 0 where it stays dense.

    Raises:
        InputError: Not so many can be saved.
    """
    at = dict.fromkeys(choices, 0)
    most = sum(options[0].macs - options[-1].macs for options in choices.values())
    if to_save > most:
        raise InputError(
            f"target_macs: {to_save} multiply-adds were to be saved; "
            f"the selected layers allow {most}"
        )
    saved = 0
    while saved < to_save:
        _, name, step = min(
            (
                (options[step].error - options[at[name]].error)
                / (options[at[name]].macs - options[step].macs),
                name,
                step,
            )
            for name, options in choices.items()
            for step in range(at[name] + 1, len(options))
            if options[step].macs < options[at[name]].macs
        )
        saved += choices[name][at[name]].macs - choices[name][step].macs
        at[name] = step
    return {name: choices[name][step].ratio for name, step in at.items()}


def _statistics(
    model: nn.Module, layer: nn.Conv2d, inputs: Tensor, max_shift: int
) -> list[Statistics]:
    total: list[Statistics] = []

    def hook(_module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> None:
        targets = run_surrounded(layer, max_shift, partial(nn.Conv2d.forward, layer), arguments[0])
        found = gather_statistics(layer, arguments[0].float(), targets.float(), max_shift)
        total[:] = found if not total else [a + b for a, b in zip(total, found, strict=True)]

    handle = layer.register_forward_hook(hook)
    try:
        for arguments in forward_arguments(model):
            model(inputs, **arguments)
    finally:
        handle.remove()
    return total
