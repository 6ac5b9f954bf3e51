"""Label-free distillation of a converted network towards the dense one, end to end."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.convolutions import forward_arguments
from ghostsr_ext.conversion.eigenbasis import EigenbasisAdam
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import GhostConv2d

_BATCH = 4
_RATES = (0.005, 0.00125, 0.0003)
_FIRST_LOOK = 24
_FAR_WORSE = 2.0
_NEAR = 0.25
_WARM_UP = 20
_MOMENT_INPUTS, _MOMENT_POSITIONS = 8, 8192
_LOOKS = 96
_RENEWED_EVERY = 2000
_MOST_TURNED = 1024
_HELD_OUT = 1 / 8
_EVEN_OUT = 0.25
_TINY = 1e-30
_TRAINED = ("weight", "bias", "gain", "ghost_bias")


@dataclass(frozen=True)
class PolishReport:
    """What a polish reached.

    Attributes:
        steps: The number of steps that the optimiser took, over all attempts.
        seconds: The wall time that all of it took.
        error_before: The mean squared difference to what is wanted on held-out calibration inputs,
            before the first step, in the units of the output.
        error_after: The same difference after the last attempt.
        kept: Whether the result was kept, because its error is smaller.
        rate: The largest rate of the last attempt.
        self_ensemble: Whether the mean of the dense network's output over flips and turns was
            wanted, and not its output alone.
        inputs: How many inputs there were in the end, those held out included.
    """

    steps: int
    seconds: float
    error_before: float
    error_after: float
    kept: bool
    rate: float
    self_ensemble: bool
    inputs: int


def polish(
    model: nn.Module,
    dense: nn.Module,
    inputs: Tensor,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    more: Callable[[int], Tensor] | None = None,
) -> PolishReport:
    """Train the convolutions of ``model`` to give the pictures that ``dense`` gives.

    No high-resolution pictures are needed. Shifts stay as they are. For an ``SRModel`` inputs are
    flipped and turned, and the wanted picture is the mean over the eight flips and turns of the
    dense network's (its self-ensemble), which is a better picture than a single one; unless the
    mean is far from the single one, as with networks that invent details.

    Args:
        model: The converted network. It is changed.
        dense: The network that it was made from. It is not changed.
        inputs: Inputs of both networks [N, C, H, W], with N 2 or more.
        minutes: The wall time to spend. The number of steps then depends on the machine.
        steps: The number of steps to take, the same on every machine. Exactly one of ``minutes``
            and ``steps`` must be given.
        seed: Seed of the order of inputs and of their turns.
        progress: Called after each step with the part that is done, 0 to 1.
        more: Takes a number, counted from 0, and returns further inputs of the size of ``inputs``.
            A long polish asks for some once it has seen those that it has 96 times each, a dozen
            times in each orientation, and again from then on. Once it raises an InputError, a
            polish goes on with what it has.

    Returns:
        What was reached. If the error on held-out inputs has risen far early on, or has not fallen
        half way or at the end, the steps are taken again, or go on for the ``minutes`` that are
        left, from the start and at a lower rate; if it has not fallen then, ``model`` is left as it
        was.

    Raises:
        InputError: Not exactly one of ``minutes`` and ``steps`` is given, or it is not positive;
            there are fewer than 2 inputs; or no parameter of ``model`` requires gradients.
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
        return _polish(model, dense, inputs, minutes, steps, seed, progress, more, started)
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
    more: Callable[[int], Tensor] | None,
    started: float,
) -> PolishReport:
    task = _Task(model, dense, inputs, seed, more)
    before = after = task.error()
    original = {name: value.clone() for name, value in model.state_dict().items()}

    def done(number: int) -> float:
        elapsed = (time.perf_counter() - started) / 60
        part = number / steps if steps is not None else elapsed / (minutes or 1.0)
        if progress is not None:
            progress(min(part, 1.0))
        return part

    taken, kept, rate = 0, False, _RATES[0]
    for rate in _RATES:
        taken += task.train(rate, done, math.inf if rate == _RATES[-1] else before)
        after = task.error()
        kept = after < before
        if kept:
            break
        model.load_state_dict(original)
        if minutes is not None and done(0) >= 1:
            break
    seconds = time.perf_counter() - started
    ensemble, inputs_seen = task.wanted.ensemble, task.number_of_inputs
    return PolishReport(taken, seconds, before, after, kept, rate, ensemble, inputs_seen)


class _Wanted:
    """What a network shall give for the inputs of one pass, flipped and turned.

    For an ``SRModel`` it is the mean over the eight symmetries of what the dense network gives, if
    that is near to what it gives for the input alone, next to how far the other network is. With
    a network that invents its details, the mean is a blurred picture of another kind; what it
    gives for each turned input is wanted then.
    """

    def __init__(
        self, model: nn.Module, dense: nn.Module, inputs: Tensor, arguments: Mapping[str, Any]
    ) -> None:
        self._dense, self._inputs, self._arguments = dense, inputs, arguments
        self.symmetric = isinstance(dense, SRModel)
        self.ensemble = self.symmetric and self._is_near(model)
        self._upright = self._outputs(inputs)
        self._turned: dict[tuple[int, int], Tensor] = {}

    def __getitem__(self, index: slice) -> Tensor:
        return self._upright[index]

    def extend(self, inputs: Tensor) -> Tensor:
        """Take further inputs, and return what is wanted for them."""
        upright = self._outputs(inputs)
        self._inputs = torch.cat((self._inputs, inputs))
        self._upright = torch.cat((self._upright, upright))
        return upright

    def batch(self, index: Tensor, turn: int) -> tuple[Tensor, Tensor]:
        """Return some inputs, turned, and what is wanted for them."""
        inputs = _turned(self._inputs[index], turn)
        if self.ensemble or turn == 0:
            return inputs, _turned(self._upright[index], turn)
        keys = [(number, turn) for number in index.tolist()]
        if any(key not in self._turned for key in keys):
            with torch.no_grad():
                outputs = self._dense(inputs, **self._arguments)
            # A view would keep the whole batch.
            self._turned.update(zip(keys, (output.clone() for output in outputs), strict=True))
            for key in list(self._turned)[: max(0, len(self._turned) - _MOST_TURNED)]:
                del self._turned[key]
            return inputs, outputs
        return inputs, torch.stack([self._turned[key] for key in keys])

    @torch.no_grad()
    def _outputs(self, inputs: Tensor) -> Tensor:
        if self.ensemble:
            return _mean_over_symmetries(self._dense, inputs, self._arguments)
        return torch.cat([self._dense(batch, **self._arguments) for batch in inputs.split(_BATCH)])

    @torch.no_grad()
    def _is_near(self, model: nn.Module) -> bool:
        some = self._inputs[:_BATCH]
        alone = self._dense(some, **self._arguments)
        mean = _mean_over_symmetries(self._dense, some, self._arguments)
        found = model(some, **self._arguments)
        apart = float((mean - alone).square().mean())
        return apart < _NEAR * float((found - alone).square().mean())


class _Task:
    """What a network is trained towards, and on which inputs."""

    def __init__(
        self,
        model: nn.Module,
        dense: nn.Module,
        inputs: Tensor,
        seed: int,
        more: Callable[[int], Tensor] | None,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._more, self._asked = more, 0
        self._start = None if more is None else copy.deepcopy(model)
        self._seed = seed
        self._passes = forward_arguments(dense)
        self._wanted = [_Wanted(model, dense, inputs, arguments) for arguments in self._passes]
        self._held_out = max(1, round(len(inputs) * _HELD_OUT))
        errors = self._errors(len(inputs))
        self._even = [_EVEN_OUT * float(error.mean()) for error in errors]
        self._weights = [
            _weights(error, even) for error, even in zip(errors, self._even, strict=True)
        ]

    @property
    def wanted(self) -> _Wanted:
        """What is wanted at the default scale."""
        return self._wanted[0]

    @property
    def number_of_inputs(self) -> int:
        """How many inputs there are by now."""
        return len(self._inputs)

    def error(self) -> float:
        """Mean squared difference to what is wanted, on the inputs that are held out."""
        means = [error.double().mean() for error in self._errors(self._held_out)]
        return float(torch.stack(means).mean())

    def train(self, rate: float, done: Callable[[int], float], most: float) -> int:
        """Take steps until ``done``, which gets their number, returns 1.

        Args:
            rate: The largest rate of the schedule.
            done: Takes the number of steps and returns the part of the budget that is spent.
            most: The error on held-out inputs from which on steps are given up half way. Early on
                they are given up only at a multiple of it.

        Returns:
            The number of steps taken.
        """
        optimizer = EigenbasisAdam(self._model, [{"params": self._trained()}], lr=rate)
        optimizer.renew(self._run, positions=_MOMENT_POSITIONS)
        generator = torch.Generator().manual_seed(self._seed)
        batches = _batches(self._held_out, lambda: len(self._inputs), generator)
        number, part, begun, half_way = 0, 0.0, done(0), False
        while part < 1:
            turn = number % len(self._passes)
            index, wanted = next(batches), self._wanted[turn]
            symmetry = int(torch.randint(8, (), generator=generator)) if wanted.symmetric else 0
            batch, target = wanted.batch(index, symmetry)
            optimizer.zero_grad()
            output = self._model(batch, **self._passes[turn])
            difference = (output - target).square().mean(dim=(1, 2, 3))
            (difference * self._weights[turn][index]).mean().backward()
            number += 1
            if number % _RENEWED_EVERY == 0:
                optimizer.renew(self._run, positions=_MOMENT_POSITIONS)
            left = (1 - part) / (1 - begun)
            optimizer.param_groups[0]["lr"] = rate * min(1.0, number / _WARM_UP) * left
            optimizer.step()
            if self._more is not None and self._seen_enough(number):
                self._extend(self._more)
            part = done(number)
            if number == _FIRST_LOOK and not self.error() < _FAR_WORSE * most:
                break
            if part >= (1 + begun) / 2 and not half_way:
                half_way = True
                if not self.error() < most:
                    break
        optimizer.zero_grad()
        return number

    def _seen_enough(self, number: int) -> bool:
        """Whether ``number`` steps have seen the inputs so often that others are due."""
        return number * _BATCH > _LOOKS * (len(self._inputs) - self._held_out)

    def _extend(self, more: Callable[[int], Tensor]) -> None:
        assert self._start is not None
        try:
            inputs = more(self._asked)
        except InputError:
            # A picture that is gone by now is no reason to lose hours of steps.
            self._more = None
            return
        self._asked += 1
        self._inputs = torch.cat((self._inputs, inputs))
        for turn, arguments in enumerate(self._passes):
            wanted = self._wanted[turn].extend(inputs)
            # Weighed by the error of the start, as the others are.
            weights = _weights(_errors(self._start, inputs, wanted, arguments), self._even[turn])
            self._weights[turn] = torch.cat((self._weights[turn], weights))

    def _trained(self) -> list[nn.Parameter]:
        return [
            parameter
            for layer in self._model.modules()
            if isinstance(layer, nn.Conv2d | GhostConv2d)
            for name, parameter in layer.named_parameters(recurse=False)
            if name in _TRAINED and parameter.requires_grad and layer.weight.requires_grad
        ]

    def _run(self) -> None:
        for arguments in self._passes:
            self._model(self._inputs[self._held_out : self._held_out + _MOMENT_INPUTS], **arguments)

    def _errors(self, count: int) -> list[Tensor]:
        return [
            _errors(self._model, self._inputs[:count], wanted[:count], arguments)
            for wanted, arguments in zip(self._wanted, self._passes, strict=True)
        ]


def _batches(first: int, stop: Callable[[], int], generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        shuffled = first + torch.randperm(stop() - first, generator=generator)
        yield from shuffled.split(_BATCH)


def _weights(errors: Tensor, even: float) -> Tensor:
    return 1 / (errors + even).clamp_min(_TINY)


@torch.no_grad()
def _mean_over_symmetries(dense: nn.Module, inputs: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    parts = []
    for batch in inputs.split(_BATCH):
        total = torch.zeros(())
        for turn in range(8):
            output = dense(_turned(batch, turn), **arguments)
            total = total + _turned(output, turn, back=True)
        parts.append(total / 8)
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
