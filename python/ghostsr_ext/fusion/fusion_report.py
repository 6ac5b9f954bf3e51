"""What became of a network's convolutions when it was fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FusionReport:
    """How much of a network was fused.

    Attributes:
        layers: Convolutions that are ``FusedConv2d`` or ``GhostConv2d`` now.
        activations: Those that end with the activation that followed them.
        residuals: Those that add the residual that was added to their output.
        stacked: Concatenations that write into one growing map instead of copying all of it.
        rewritten: Names of the modules whose forward was replaced by what was traced; ``""`` is the
            network itself.
        left: Modules and convolutions that stayed as they were, by name, with the reason.
    """

    layers: int = 0
    activations: int = 0
    residuals: int = 0
    stacked: int = 0
    rewritten: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in one sentence, and one line for each module that was left."""
        counts = (
            f"{self.layers} convolutions are fused layers: {self.activations} with their "
            f"activation, {self.residuals} with their residual; {self.stacked} concatenations "
            "share a growing map"
        )
        return "\n".join(
            [counts, *(f"{name or '(network)'}: {why}" for name, why in self.left.items())]
        )
