"""Label-free distillation of a converted network towards the dense one, end to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.eigenbasis import EigenbasisAdam
from ghostsr_ext.conversion.tracing import forward_arguments
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel

_BATCH = 4
_RATES = (0.005, 0.00125)
_WARM_UP = 20
_MOMENT_INPUTS = 8
_HELD_OUT = 1 / 8
_EVEN_OUT = 0.25
_TINY = 1e-30


@dataclass(frozen=True)
class PolishReport:
    """What a polish reached.

    Attributes:
        steps: Of the optimiser.
        seconds: Wall time.
        error_before: Mean squared difference to the dense network's output on held-out calibration
            inputs, in the units of the output.
        error_after: The same afterwards.
        kept: Whether the result was kept, because its error is smaller.
    """

    steps: int
    seconds: float
    error_before: float
    error_after: float
    kept: bool


def polish(
    model: nn.Module,
    dense: nn.Module,
    inputs: Tensor,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> PolishReport:
    """Train the convolutions of ``model`` to give the pictures that ``dense`` gives.

    No high-resolution pictures are needed. Shifts stay as they are. For an ``SRModel`` the wanted
    picture is the mean over the eight flips and turns of the dense network's (its self-ensemble),
    which is a better picture than a single one, and inputs are flipped and turned as well.

    Args:
        model: The converted network; it is changed.
        dense: The network that it was made from.
        inputs: Inputs of both [N, C, H, W], 2 or more.
        minutes: Wall time to spend; the number of steps then depends on the machine.
        steps: Steps to take, the same everywhere; exactly one of ``minutes`` and ``steps`` counts.
        seed: Of the choice of inputs.
        progress: Called after each step with the part that is done, 0 to 1.

    Returns:
        What was reached. If the error on held-out inputs has not fallen after all steps, they are
        taken again at a lower rate; if it has not fallen then, or after ``minutes``, ``model`` is
        left as it was.

    Raises:
        InputError: Not exactly one positive budget, too few inputs, or nothing to train.
    """
    if (minutes is None) == (steps is None):
        raise InputError("polish: exactly one of minutes and steps is needed")
    if (minutes is not None and not minutes > 0) or (steps is not None and steps < 1):
        raise InputError(f"polish: found {minutes or steps}; a positive number is allowed")
    if len(inputs) < 2:
        raise InputError(f"calibration: found {len(inputs)} input; a polish needs 2 or more")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("model: no parameter requires gradients, so there is nothing to train")
    started = time.perf_counter()
    modes = {module: module.training for network in (model, dense) for module in network.modules()}
    model.eval()
    dense.eval()
    try:
        return _polish(model, dense, inputs, minutes, steps, seed, progress, started)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _polish(
    model: nn.Module,
    dense: nn.Module,
    inputs: Tensor,
    minutes: float | None,
    steps: int | None,
    seed: int,
    progress: Callable[[float], None] | None,
    started: float,
) -> PolishReport:
    task = _Task(model, dense, inputs, seed)
    before = task.error()
    original = {name: value.clone() for name, value in model.state_dict().items()}

    def done(number: int) -> float:
        elapsed = (time.perf_counter() - started) / 60
        part = number / steps if steps is not None else elapsed / (minutes or 1.0)
        if progress is not None:
            progress(min(part, 1.0))
        return part

    number, after, kept = 0, before, False
    for rate in _RATES if minutes is None else _RATES[:1]:
        number += task.train(rate, done)
        after = task.error()
        kept = after < before
        if kept:
            break
        model.load_state_dict(original)
    return PolishReport(number, time.perf_counter() - started, before, after, kept)


class _Task:
    """What a network is trained towards, and on which inputs."""

    def __init__(self, model: nn.Module, dense: nn.Module, inputs: Tensor, seed: int) -> None:
        self._model = model
        self._inputs = inputs
        self._seed = seed
        self._symmetric = isinstance(dense, SRModel)
        self._passes = forward_arguments(dense)
        self._wanted = [
            _wanted(dense, inputs, arguments, self._symmetric) for arguments in self._passes
        ]
        self._held_out = max(1, round(len(inputs) * _HELD_OUT))
        errors = self._errors(len(inputs))
        self._weights = [
            1 / (error + _EVEN_OUT * error.mean()).clamp_min(_TINY) for error in errors
        ]

    def error(self) -> float:
        """Mean squared difference to what is wanted, on the inputs that are held out."""
        means = [error.double().mean() for error in self._errors(self._held_out)]
        return float(torch.stack(means).mean())

    def train(self, rate: float, done: Callable[[int], float]) -> int:
        """Take steps until ``done``, which gets their number, returns 1; returns the number."""
        optimizer = EigenbasisAdam(self._model, self._run)
        generator = torch.Generator().manual_seed(self._seed)
        batches = _batches(self._held_out, len(self._inputs), generator)
        number, part = 0, 0.0
        while part < 1:
            turn = number % len(self._passes)
            index = next(batches)
            batch, target = self._inputs[index], self._wanted[turn][index]
            if self._symmetric:
                symmetry = int(torch.randint(8, (), generator=generator))
                batch, target = _turned(batch, symmetry), _turned(target, symmetry)
            optimizer.zero_grad()
            output = self._model(batch, **self._passes[turn])
            difference = (output - target).square().mean(dim=(1, 2, 3))
            (difference * self._weights[turn][index]).mean().backward()
            number += 1
            optimizer.step(rate * min(1.0, number / _WARM_UP) * (1 - part))
            part = done(number)
        optimizer.zero_grad()
        return number

    def _run(self) -> None:
        for arguments in self._passes:
            self._model(self._inputs[self._held_out : self._held_out + _MOMENT_INPUTS], **arguments)

    def _errors(self, count: int) -> list[Tensor]:
        return [
            _errors(self._model, self._inputs[:count], wanted[:count], arguments)
            for wanted, arguments in zip(self._wanted, self._passes, strict=True)
        ]


def _batches(first: int, stop: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        shuffled = first + torch.randperm(stop - first, generator=generator)
        yield from shuffled.split(_BATCH)


@torch.no_grad()
def _wanted(
    dense: nn.Module, inputs: Tensor, arguments: Mapping[str, Any], symmetric: bool
) -> Tensor:
    turns = range(8) if symmetric else range(1)
    parts = []
    for batch in inputs.split(_BATCH):
        outputs = [_turned(dense(_turned(batch, t), **arguments), t, back=True) for t in turns]
        parts.append(torch.stack(outputs).mean(0))
    return torch.cat(parts)


@torch.no_grad()
def _errors(
    model: nn.Module, inputs: Tensor, wanted: Tensor, arguments: Mapping[str, Any]
) -> Tensor:
    """Return the mean squared difference of each input's output to what is wanted, [N]."""
    parts = [
        (model(batch, **arguments) - target).square().mean(dim=(1, 2, 3))
        for batch, target in zip(inputs.split(_BATCH), wanted.split(_BATCH), strict=True)
    ]
    return torch.cat(parts)


def _turned(maps: Tensor, turn: int, *, back: bool = False) -> Tensor:
    """Apply one of the eight symmetries of the square, or undo it."""
    quarters, mirrored = turn % 4, turn >= 4
    if back:
        maps = torch.rot90(maps, -quarters, (2, 3))
        return maps.flip(3) if mirrored else maps
    return torch.rot90(maps.flip(3) if mirrored else maps, quarters, (2, 3))
