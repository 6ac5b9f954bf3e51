"""Label-free distillation of a converted network towards the dense one, end to end."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.conversion.convolutions import forward_arguments
from ghostsr_ext.conversion.eigenbasis import EigenbasisAdam
from ghostsr_ext.conversion.polish_checkpoint import (
    PolishCheckpoint,
    PolishProgress,
    StoredPolish,
)
from ghostsr_ext.conversion.wanted import BATCH, Wanted
from ghostsr_ext.errors import InputError
from ghostsr_ext.interrupts import DeferredInterrupt
from ghostsr_ext.nn import GhostConv2d

_RATES = (0.005, 0.00125, 0.0003)
_FIRST_LOOK = 24
_FAR_WORSE = 2.0
_WARM_UP = 20
_MOMENT_INPUTS, _MOMENT_POSITIONS = 8, 8192
_LOOKS = 96
_RENEWED_EVERY = 2000
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


@torch.inference_mode(False)
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
    checkpoint: PolishCheckpoint | None = None,
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
        checkpoint: Keeps how far the polish is, so that the same call, with the same networks and
            inputs, goes on from there: on the same machine and with as many threads to the same
            bits as if it had not been stopped. ``minutes`` that were spent count.

    Returns:
        What was reached. If the error on held-out inputs has risen far early on, or has not fallen
        half way or at the end, the steps are taken again, or go on for the ``minutes`` that are
        left, from the start and at a lower rate; if it has not fallen then, ``model`` is left as it
        was.

    Raises:
        InputError: Not exactly one of ``minutes`` and ``steps`` is given, or it is not positive;
            there are fewer than 2 inputs; no parameter of ``model`` requires gradients; or the
            checkpoint is damaged or of a network of other layers.
    """
    if (minutes is None) == (steps is None):
        raise InputError("polish: exactly one of minutes and steps is needed")
    if (minutes is not None and not minutes > 0) or (steps is not None and steps < 1):
        raise InputError(f"polish: found {minutes or steps}; a positive number is allowed")
    if len(inputs) < 2:
        raise InputError(f"calibration: found {len(inputs)} input; a polish needs 2 or more")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("model: no parameter requires gradients, so there is nothing to train")
    budget = _Budget(minutes, steps, progress)
    modes = {module: module.training for network in (model, dense) for module in network.modules()}
    model.eval()
    dense.eval()
    try:
        return _polish(model, dense, inputs, seed, more, budget, checkpoint)
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Budget:
    """The steps or the wall time to spend, and what of it is spent."""

    def __init__(
        self, minutes: float | None, steps: int | None, progress: Callable[[float], None] | None
    ) -> None:
        self.minutes, self.steps, self._progress = minutes, steps, progress
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The wall time that was spent, before an interruption, too."""
        return time.perf_counter() - self._started

    def go_on(self, seconds: float) -> None:
        """Count from this number of seconds on."""
        self._started = time.perf_counter() - seconds

    def done(self, number: int) -> float:
        """Tell how far an attempt of this number of steps is, and return it: 0 to 1, or beyond."""
        if self.steps is not None:
            part = number / self.steps
        else:
            part = self.seconds / 60 / (self.minutes or 1.0)
        if self._progress is not None:
            self._progress(min(part, 1.0))
        return part

    def described(self, number: int) -> str:
        """Say how far it is."""
        if self.steps is not None:
            return f"step {number} of {self.steps}"
        return f"minute {self.seconds / 60:.1f} of {self.minutes:g}"


def _polish(
    model: nn.Module,
    dense: nn.Module,
    inputs: Tensor,
    seed: int,
    more: Callable[[int], Tensor] | None,
    budget: _Budget,
    checkpoint: PolishCheckpoint | None,
) -> PolishReport:
    with nullcontext() if checkpoint is None else checkpoint.stored() as stored:
        if stored is not None:
            _load(model, stored, "start.")
        task = _Task(model, dense, inputs, seed, more)
        before = after = task.error()
        original = {name: value.clone() for name, value in model.state_dict().items()}
        if stored is None:
            taken, attempt = 0, _Attempt(task, 0)
            attempt.begin(budget.done(0))
        else:
            taken, attempt = stored.progress.earlier_steps, _restored(task, stored)
            budget.go_on(stored.progress.seconds)
    if checkpoint is not None and stored is not None:
        checkpoint.notify(f"goes on from {budget.described(attempt.number)}: {checkpoint.path}")

    interrupt = DeferredInterrupt()

    def keep() -> None:
        if checkpoint is None:
            return
        stopped = interrupt.asked and checkpoint.kept
        written = False
        if stopped or checkpoint.due():
            start = {f"start.{name}": value for name, value in original.items()}
            progress = attempt.progress(taken, budget.seconds)
            written = checkpoint.write(progress, {**start, **attempt.tensors()})
        if stopped and written:
            checkpoint.notify(
                f"stopped at {budget.described(attempt.number)}; the same conversion goes on from "
                f"there: {checkpoint.path}"
            )
        if interrupt.asked:
            raise KeyboardInterrupt

    kept = False
    with nullcontext() if checkpoint is None else interrupt:
        while True:
            last = attempt.index == len(_RATES) - 1
            taken += attempt.run(budget.done, math.inf if last else before, keep)
            after = task.error()
            kept = after < before
            if kept:
                break
            model.load_state_dict(original)
            if last or (budget.minutes is not None and budget.done(0) >= 1):
                break
            attempt = _Attempt(task, attempt.index + 1)
            attempt.begin(budget.done(0))
    ensemble, inputs_seen = task.wanted.ensemble, task.number_of_inputs
    return PolishReport(
        taken, budget.seconds, before, after, kept, attempt.rate, ensemble, inputs_seen
    )


def _restored(task: _Task, stored: StoredPolish) -> _Attempt:
    """Return the attempt that a checkpoint is of; the network of ``task`` has its start."""
    progress = stored.progress
    if progress.attempt >= len(_RATES) or progress.asked > progress.earlier_steps + progress.number:
        raise stored.damaged(f"attempt is {progress.attempt}, asked is {progress.asked}")
    attempt = _Attempt(task, progress.attempt)
    attempt.begin(progress.begun)
    task.take_further(progress.asked, more=progress.more)
    attempt.load(stored)
    return attempt


def _load(model: nn.Module, stored: StoredPolish, prefix: str) -> None:
    try:
        model.load_state_dict(stored.tensors(prefix, model.state_dict()))
    except RuntimeError as error:
        # Layers check their own tables; torch puts a headline above what they say.
        raise stored.damaged(str(error).splitlines()[-1].strip()) from error


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
        self.model, self.seed = model, seed
        self._inputs = inputs
        self._more, self.asked = more, 0
        self._start = None if more is None else copy.deepcopy(model)
        self.passes = forward_arguments(dense)
        self._wanted = [Wanted(model, dense, inputs, arguments) for arguments in self.passes]
        self.held_out = max(1, round(len(inputs) * _HELD_OUT))
        errors = self._errors(len(inputs))
        self._even = [_EVEN_OUT * float(error.mean()) for error in errors]
        self._weights = [
            _weights(error, even) for error, even in zip(errors, self._even, strict=True)
        ]

    @property
    def wanted(self) -> Wanted:
        """What is wanted at the default scale."""
        return self._wanted[0]

    @property
    def number_of_inputs(self) -> int:
        """How many inputs there are by now."""
        return len(self._inputs)

    def error(self) -> float:
        """Mean squared difference to what is wanted, on the inputs that are held out."""
        means = [error.double().mean() for error in self._errors(self.held_out)]
        return float(torch.stack(means).mean())

    @property
    def has_more(self) -> bool:
        """Whether there may be further inputs."""
        return self._more is not None

    def loss(self, turn: int, index: Tensor, symmetry: int) -> Tensor:
        """Return the weighted mean squared difference on some inputs in one of the passes."""
        batch, target = self._wanted[turn].batch(index, symmetry)
        output = self.model(batch, **self.passes[turn])
        difference: Tensor = (output - target).square().mean(dim=(1, 2, 3))
        return (difference * self._weights[turn][index]).mean()

    def run(self) -> None:
        """Run the network on inputs that are typical."""
        for arguments in self.passes:
            self.model(self._inputs[self.held_out : self.held_out + _MOMENT_INPUTS], **arguments)

    def trained(self) -> list[nn.Parameter]:
        """Return what a step changes."""
        return [
            parameter
            for layer in self.model.modules()
            if isinstance(layer, nn.Conv2d | GhostConv2d)
            for name, parameter in layer.named_parameters(recurse=False)
            if name in _TRAINED and parameter.requires_grad and layer.weight.requires_grad
        ]

    def extend_if_due(self, number: int) -> None:
        """Take further inputs if ``number`` steps have seen those that there are often enough."""
        if self._more is None:
            return
        if number * BATCH <= _LOOKS * (len(self._inputs) - self.held_out):
            return
        try:
            self._extend(self._more)
        except InputError:
            # A picture that is gone by now is no reason to lose hours of steps.
            self._more = None

    def take_further(self, times: int, *, more: bool) -> None:
        """Take the further inputs that a run before has taken.

        Args:
            times: How often it took some.
            more: Whether there were more of them.

        Raises:
            InputError: There are none now.
        """
        for _ in range(times):
            if self._more is None:
                raise InputError("more: there are no further inputs, as there were before")
            self._extend(self._more)
        if not more:
            self._more = None

    def _extend(self, more: Callable[[int], Tensor]) -> None:
        assert self._start is not None
        inputs = more(self.asked)
        self.asked += 1
        self._inputs = torch.cat((self._inputs, inputs))
        for turn, arguments in enumerate(self.passes):
            wanted = self._wanted[turn].extend(inputs)
            # Weighed by the error of the start, as the others are.
            weights = _weights(_errors(self._start, inputs, wanted, arguments), self._even[turn])
            self._weights[turn] = torch.cat((self._weights[turn], weights))

    def _errors(self, count: int) -> list[Tensor]:
        return [
            _errors(self.model, self._inputs[:count], wanted[:count], arguments)
            for wanted, arguments in zip(self._wanted, self.passes, strict=True)
        ]


class _Attempt:
    """Steps at one of the rates, and all that the next of them depends on.

    Attributes:
        index: Which of the rates.
        rate: The largest rate of the schedule.
        number: How many steps were taken.
    """

    def __init__(self, task: _Task, index: int) -> None:
        self.index, self.rate, self.number = index, _RATES[index], 0
        self._task = task
        self._part = self._begun = 0.0
        self._half_way = False
        self._parameters = task.trained()
        self._optimizer = EigenbasisAdam(task.model, [{"params": self._parameters}], lr=self.rate)
        self._generator = torch.Generator().manual_seed(task.seed)
        self._order = torch.empty(0, dtype=torch.int64)

    def begin(self, part: float) -> None:
        """Begin where this part of the budget is spent."""
        self._part = self._begun = part
        self._optimizer.renew(self._task.run, positions=_MOMENT_POSITIONS)

    def run(
        self, done: Callable[[int], float], most: float, keep: Callable[[], None] = lambda: None
    ) -> int:
        """Take steps until ``done``, which gets their number, returns 1.

        Args:
            done: Takes the number of steps and returns the part of the budget that is spent.
            most: The error on held-out inputs from which on steps are given up half way. Early on
                they are given up only at a multiple of it.
            keep: Called after each step that others follow.

        Returns:
            The number of steps taken, those before an interruption among them.
        """
        while self._part < 1:
            self._step()
            self._task.extend_if_due(self.number)
            self._part = done(self.number)
            if self.number == _FIRST_LOOK and not self._task.error() < _FAR_WORSE * most:
                break
            if self._part >= (1 + self._begun) / 2 and not self._half_way:
                self._half_way = True
                if not self._task.error() < most:
                    break
            keep()
        self._optimizer.zero_grad()
        return self.number

    def progress(self, earlier_steps: int, seconds: float) -> PolishProgress:
        """Return how far it is, after so many steps of other attempts and so many seconds."""
        return PolishProgress(
            attempt=self.index,
            earlier_steps=earlier_steps,
            number=self.number,
            part=self._part,
            begun=self._begun,
            half_way=self._half_way,
            seconds=seconds,
            asked=self._task.asked,
            more=self._task.has_more,
            seen=tuple(self._state(parameter).get("step", 0) for parameter in self._parameters),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return what :meth:`load` needs."""
        # Parameters that are shared have a place of their own in a file.
        now = {
            f"now.{name}": value.clone() for name, value in self._task.model.state_dict().items()
        }
        known = {
            f"optimizer.{index}.{key}": value
            for index, parameter in enumerate(self._parameters)
            for key, value in self._state(parameter).items()
            if key != "step"
        }
        return {**now, **known, "order": self._order, "generator": self._generator.get_state()}

    def load(self, stored: StoredPolish) -> None:
        """Go to where :meth:`tensors` was called; the task has the same inputs already."""
        progress = stored.progress
        if len(progress.seen) != len(self._parameters):
            raise stored.damaged(f"it trains {len(progress.seen)} parameters")
        for index, (parameter, seen) in enumerate(
            zip(self._parameters, progress.seen, strict=True)
        ):
            # The look at the start has left all but the moments of gradients.
            like = dict(self._state(parameter))
            if seen:
                like["mean"] = like["square"] = self._optimizer.blank_moment(parameter)
                self._optimizer.state[parameter]["step"] = seen
            for key, value in stored.tensors(f"optimizer.{index}.", like).items():
                self._optimizer.state[parameter][key] = value.to(parameter.device)
        _load(self._task.model, stored, "now.")
        self._order = stored.order()
        rows = self._task.held_out, self._task.number_of_inputs
        if self._order.dtype != torch.int64 or any(
            not rows[0] <= row < rows[1] for row in self._order.tolist()
        ):
            raise stored.damaged("it names inputs that there are not")
        state = stored.tensors("", {"generator": self._generator.get_state()})["generator"]
        try:
            self._generator.set_state(state)
        except RuntimeError as error:
            raise stored.damaged(error) from error
        self.number = progress.number
        self._part, self._half_way = progress.part, progress.half_way

    def _step(self) -> None:
        turn = self.number % len(self._task.passes)
        index = self._next_inputs()
        symmetry = 0
        if self._task.wanted.symmetric:
            symmetry = int(torch.randint(8, (), generator=self._generator))
        self._optimizer.zero_grad()
        self._task.loss(turn, index, symmetry).backward()
        self.number += 1
        if self.number % _RENEWED_EVERY == 0:
            self._optimizer.renew(self._task.run, positions=_MOMENT_POSITIONS)
        left = (1 - self._part) / (1 - self._begun)
        rate = self.rate * min(1.0, self.number / _WARM_UP) * left
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()

    def _next_inputs(self) -> Tensor:
        if not len(self._order):
            first, stop = self._task.held_out, self._task.number_of_inputs
            self._order = first + torch.randperm(stop - first, generator=self._generator)
        index, self._order = self._order[:BATCH], self._order[BATCH:]
        return index

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        known: dict[str, Any] = self._optimizer.state.get(parameter, {})
        return known


def _weights(errors: Tensor, even: float) -> Tensor:
    return 1 / (errors + even).clamp_min(_TINY)


@torch.no_grad()
def _errors(
    model: nn.Module, inputs: Tensor, wanted: Tensor, arguments: Mapping[str, Any]
) -> Tensor:
    """Return the mean squared difference of each input's output to what is wanted, [N]."""
    parts = [
        (model(batch, **arguments) - target).square().mean(dim=(1, 2, 3))
        for batch, target in zip(inputs.split(BATCH), wanted.split(BATCH), strict=True)
    ]
    return torch.cat(parts)
