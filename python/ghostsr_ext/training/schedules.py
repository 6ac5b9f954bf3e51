"""Values that change with the steps: the learning rate and the temperature of the shifts."""

from __future__ import annotations

import math

from ghostsr_ext.training.config import ScheduleConfig, ShiftConfig


def lr_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Return the learning rate over its base value.

    Args:
        schedule: The shape of the curve.
        step: 0 .. ``steps`` - 1.
        steps: Number of steps of the run.
    """
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "step":
        return schedule.gamma ** sum(step >= milestone for milestone in schedule.milestones)
    part = (step - schedule.warmup) / max(1, steps - schedule.warmup)
    return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * part)) / 2


def tau(shifts: ShiftConfig, step: int, steps: int) -> float:
    """Return the temperature of the shift selection.

    It goes from ``tau_start`` at step 0 to ``tau_end`` at the step of freezing (at the end where
    shifts are never frozen).

    Args:
        shifts: Its ends and shape.
        step: 0 .. ``steps`` - 1.
        steps: Number of steps of the run.
    """
    start, end = shifts.tau_start, shifts.tau_end
    part = min(1.0, step / max(1.0, shifts.freeze_at * steps))
    if shifts.tau_shape == "constant":
        return start
    if shifts.tau_shape == "linear":
        return start + (end - start) * part
    if shifts.tau_shape == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
    return float(start * (end / start) ** part)


def noisy(shifts: ShiftConfig, step: int, steps: int) -> bool:
    """Return whether Gumbel noise is added to the logits at ``step`` of ``steps``."""
    return step < shifts.noise_until * steps


def freeze_step(shifts: ShiftConfig, steps: int) -> int | None:
    """Return the step before which the shifts become a table; None for never."""
    return None if shifts.freeze_at == 1 else round(shifts.freeze_at * steps)


def reselects(shifts: ShiftConfig, step: int, steps: int) -> bool:
    """Return whether ghosts get other sources and shifts before ``step`` of ``steps``."""
    every = shifts.reselect_every
    return every is not None and 0 < step < shifts.freeze_at * steps and step % every == 0
