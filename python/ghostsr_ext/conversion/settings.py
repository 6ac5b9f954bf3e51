"""What several parts of a conversion are told."""

from __future__ import annotations

from dataclasses import dataclass

from ghostsr_ext.nn import ShiftScope


@dataclass(frozen=True)
class GhostSettings:
    """What ghost layers may do: see the arguments of ``GhostConv2d``."""

    max_shift: int = 1
    shift_scope: ShiftScope = "channel"
    affine: bool = False
