"""What several parts of a conversion are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ghostsr_ext.nn import ShiftScope

Progress = Callable[[int, int, str], None]
"""Called after each step with the steps done, the steps in all, and what was done."""


@dataclass(frozen=True)
class GhostSettings:
    """What ghost layers may do: see the arguments of ``GhostConv2d``."""

    max_shift: int = 1
    shift_scope: ShiftScope = "channel"
    affine: bool = False
