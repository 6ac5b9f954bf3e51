"""Whether another runtime gives the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.export.lowering import LoweredNetwork


@dataclass(frozen=True)
class Parity:
    """How far a runtime is from torch.

    Attributes:
        runtime: Its name and version.
        differences: The largest difference for each of the network's ``sizes``, for values in
            0..255.
    """

    runtime: str
    differences: tuple[float, ...]

    @property
    def largest(self) -> float:
        """The largest difference of all, for values in 0..255."""
        return max(self.differences)


@torch.no_grad()
def own_rounding(network: LoweredNetwork) -> float:
    """Return how far torch itself is in float32 from float64, for values in 0..255."""
    image = network.example(*network.sizes()[0])
    return float((network(image) - network.expected(image)).abs().max()) * 255 / network.white


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
        run: The runtime, from an input to the output.
        runtime: Its name and version.
        tolerance: Largest difference to accept, for values in 0..255.
        path: What is being written, for the message.

    Raises:
        GhostsrError: A difference is larger, or not finite.
    """
    unit = 255 / network.white
    differences = []
    for size in network.sizes():
        image = network.example(*size)
        # In float64, so that only the runtime's own rounding counts.
        expected = network.expected(image)
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
