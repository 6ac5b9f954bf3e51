"""Whether another runtime gives the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.export.lowering import LoweredNetwork

SIZES = ((32, 48), (37, 23), (8, 61))
"""Rows and columns of the pictures that are compared."""


@dataclass(frozen=True)
class Parity:
    """How far a runtime is from torch.

    Attributes:
        runtime: Its name and version.
        differences: The largest difference for each size in ``SIZES``, for values in 0..255.
    """

    runtime: str
    differences: tuple[float, ...]

    @property
    def largest(self) -> float:
        """The largest difference of all, for values in 0..255."""
        return max(self.differences)


def check_parity(
    network: LoweredNetwork,
    run: Callable[[Tensor], Tensor],
    runtime: str,
    tolerance: float,
    path: Path,
) -> Parity:
    """Compare a runtime with torch on several sizes.

    Args:
        network: What was exported.
        run: The runtime, from [1, C, h, w] to the enlarged picture.
        runtime: Its name and version.
        tolerance: Largest difference to accept, for values in 0..255.
        path: What is being written, for the message.

    Raises:
        GhostsrError: A difference is larger, or not finite.
    """
    unit = 255 / network.original.value_range
    differences = []
    for size in SIZES:
        image = network.example(*size)
        # In float64, so that only the runtime's own rounding counts.
        with torch.inference_mode():
            expected = network.original(image.double(), network.scale)
        found = run(image)
        if found.shape != expected.shape:
            raise GhostsrError(
                f"output {path}: {runtime} gives shape {tuple(found.shape)} for "
                f"{size[1]}x{size[0]}, torch {tuple(expected.shape)}"
            )
        differences.append(float((found - expected).abs().max()) * unit)
    parity = Parity(runtime, tuple(differences))
    if not parity.largest <= tolerance:
        raise GhostsrError(
            f"output {path}: {runtime} differs from torch by {parity.largest:.3g} (of 0..255); "
            f"{tolerance:g} is accepted"
        )
    return parity
