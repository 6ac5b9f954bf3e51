"""Cutting a picture into overlapping tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

GRID = 4
"""Tiles start at multiples of this many pixels.

Kernels that work on blocks of pixels (Winograd's 4x4 among them) then see the blocks of a tile
where they see those of the whole picture, and round alike.
"""


@dataclass(frozen=True)
class Span:
    """One axis of a tile: what it delivers and what it has to read for that.

    Attributes:
        start: First pixel that is delivered.
        stop: One past the last pixel that is delivered.
        read_start: First pixel that is read.
        read_stop: One past the last pixel that is read.
    """

    start: int
    stop: int
    read_start: int
    read_stop: int

    @property
    def read(self) -> slice:
        """What is read, in the picture."""
        return slice(self.read_start, self.read_stop)

    def kept(self, growth: int) -> slice:
        """What is delivered, in the enlarged form of what is read."""
        first = (self.start - self.read_start) * growth
        return slice(first, first + (self.stop - self.start) * growth)


def span(start: int, length: int, side: int, margin: int, grid: int = GRID) -> Span:
    """Return the tile of ``side`` pixels that starts at ``start`` on an axis of ``length`` pixels.

    Args:
        start: First pixel to deliver.
        length: Pixels on the axis.
        side: Pixels to deliver, fewer at the end of the axis.
        margin: How many pixels around it a pixel depends on.
        grid: What tiles start at multiples of.
    """
    stop = min(length, start + side)
    read_start = max(0, start - margin) // grid * grid
    read_stop = min(length, -(-(stop + margin) // grid) * grid)
    return Span(start, stop, read_start, read_stop)


def spans(length: int, side: int, margin: int, grid: int = GRID) -> Iterator[Span]:
    """Cut an axis of ``length`` pixels into tiles; see :func:`span`."""
    for start in range(0, length, side):
        yield span(start, length, side, margin, grid)
