"""Turning pictures upright as EXIF and TIFF say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TURNS: dict[int, tuple[int, bool]] = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}
"""Orientation to quarter turns to the left, and then whether to mirror left to right."""


def known_orientation(value: Any) -> int:
    """Return an orientation from 1 to 8; upright (1) for anything else."""
    return value if isinstance(value, int) and value in _TURNS else 1


def swaps_sides(orientation: int) -> bool:
    """Whether rows become columns."""
    return _TURNS[orientation][0] % 2 == 1


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an array [H, W, ...] upright; a copy unless it is upright already."""
    turns, mirrored = _TURNS[orientation]
    values = np.rot90(values, turns)
    return np.ascontiguousarray(values[:, ::-1] if mirrored else values)
