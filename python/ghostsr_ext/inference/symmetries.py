"""The eight symmetries of the square, over which a self-ensemble averages."""

from __future__ import annotations

import torch
from torch import Tensor

SYMMETRIES = range(8)
"""Four quarter turns, each plain and mirrored."""


def turn(image: Tensor, symmetry: int) -> Tensor:
    """Apply one of the symmetries to [N, C, H, W]; odd turns swap height and width."""
    quarter_turns, mirrored = symmetry % 4, symmetry >= 4
    return torch.rot90(image.flip(3) if mirrored else image, quarter_turns, (2, 3))


def turn_back(image: Tensor, symmetry: int) -> Tensor:
    """Undo :func:`turn`."""
    quarter_turns, mirrored = symmetry % 4, symmetry >= 4
    image = torch.rot90(image, -quarter_turns, (2, 3))
    return image.flip(3) if mirrored else image
