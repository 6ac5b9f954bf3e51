"""What a conversion is told, and what of it is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from ghostsr_ext.conversion.pictures import Calibration
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.errors import InputError
from ghostsr_ext.nn import MAX_SHIFT_LIMIT

Method = Literal["kmeans", "filters", "calibrated", "prune"]
METHODS: tuple[str, ...] = get_args(Method)

GhostOperation = Literal["shift", "depthwise"]

Unsuitable = Literal["leave", "convert"]
UNSUITABLE: tuple[str, ...] = get_args(Unsuitable)


@dataclass(frozen=True)
class Options:
    """The arguments of ``convert`` that say what shall be done; see there."""

    ghost_ratio: float
    method: Method
    settings: GhostSettings
    ghost_op: GhostOperation
    unsuitable: Unsuitable
    seed: int
    target_macs: float | None
    max_drop: float | None
    polish_minutes: float | None
    polish_steps: int | None

    @property
    def by_budget(self) -> bool:
        """Whether each layer gets a ratio of its own."""
        return self.target_macs is not None or self.max_drop is not None

    @property
    def polishes_by_default(self) -> bool:
        """Whether nothing was said of a polish."""
        return self.polish_minutes is None and self.polish_steps is None

    def described(self) -> dict[str, Any]:
        """Return what a report says of them."""
        return {
            "ghost_ratio": None if self.by_budget else self.ghost_ratio,
            "target_macs": self.target_macs,
            "max_drop": self.max_drop,
            "max_shift": self.settings.max_shift,
            "shift_scope": self.settings.shift_scope,
            "affine": self.settings.affine,
            "ghost_op": self.ghost_op,
            "unsuitable": self.unsuitable,
            "seed": self.seed,
        }


def check_options(options: Options, calibration: Calibration | None) -> None:
    """Check every argument alone and beside the others.

    Raises:
        InputError: One is outside its domain, or contradicts another.
    """
    _check_values(options)
    _check_method(options, calibration)
    _check_polish(options, calibration)
    _check_budget(options, calibration)


def check_network(model: object) -> None:
    """Check that ``model`` is a network.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model: found {model!r}; a network is needed: ghostsr_ext.load_model reads files"
        )


def _check_values(options: Options) -> None:
    max_shift, shift_scope = options.settings.max_shift, options.settings.shift_scope
    if not 0 <= options.ghost_ratio < 1:
        raise InputError(
            f"ghost_ratio: found {options.ghost_ratio}; 0 <= ghost_ratio < 1 is allowed"
        )
    if isinstance(max_shift, bool) or max_shift not in range(MAX_SHIFT_LIMIT + 1):
        raise InputError(f"max_shift: found {max_shift}; 0 to {MAX_SHIFT_LIMIT} is allowed")
    for name, value, allowed in (
        ("method", options.method, METHODS),
        ("shift_scope", shift_scope, ("channel", "layer")),
        ("ghost_op", options.ghost_op, get_args(GhostOperation)),
        ("unsuitable", options.unsuitable, UNSUITABLE),
    ):
        if value not in allowed:
            raise InputError(f"{name}: found {value!r}; allowed are {', '.join(allowed)}")


def _check_method(options: Options, calibration: Calibration | None) -> None:
    method = options.method
    if method == "calibrated" and calibration is None:
        raise InputError('calibration: method "calibrated" needs pictures')
    if options.settings.affine and method in ("kmeans", "prune"):
        raise InputError(f'affine: method "{method}" has no gains')
    if options.ghost_op == "depthwise" and method == "prune":
        raise InputError('ghost_op: method "prune" makes no ghosts')


def _check_polish(options: Options, calibration: Calibration | None) -> None:
    minutes, steps = options.polish_minutes, options.polish_steps
    if minutes is not None and steps is not None:
        raise InputError("polish_minutes, polish_steps: found both; one of them is allowed")
    if minutes is not None and not 0 <= minutes < math.inf:
        raise InputError(f"polish_minutes: found {minutes}; minutes from 0 are allowed")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 0):
        raise InputError(f"polish_steps: found {steps!r}; whole numbers from 0 are allowed")
    if (minutes or steps) and calibration is None:
        name = "polish_minutes" if minutes else "polish_steps"
        raise InputError(f"{name}: a polish needs calibration pictures")


def _check_budget(options: Options, calibration: Calibration | None) -> None:
    target_macs, max_drop = options.target_macs, options.max_drop
    if not options.by_budget:
        return
    if options.method == "prune":
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
