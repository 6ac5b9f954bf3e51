"""Telling a run that has gone wrong from one that goes on."""

from __future__ import annotations

import math
from typing import Any

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.training.config import TrainingConfig

_LOSS_MEMORY = 0.98
"""Decay of the running mean by which divergence is told."""


class DivergenceCheck:
    """Watches the loss of a run.

    Args:
        config: ``divergence`` is how many times its lowest value the mean loss may be; the rest is
            for the advice.
        kept: Where the last good checkpoint is, for the advice.
    """

    def __init__(self, config: TrainingConfig, kept: object) -> None:
        self._config = config
        self._kept = kept
        self._mean: float | None = None
        self._lowest = float("inf")

    def check(self, step: int, loss: float, usable: bool) -> None:
        """Take the loss of a step.

        Args:
            step: Its number.
            loss: Its loss.
            usable: Whether its gradient is finite; in fp16 a step without one is passed over.

        Raises:
            GhostsrError: The loss or its gradient is not finite, or the mean loss has grown too
                much.
        """
        if not math.isfinite(loss) or not (usable or self._config.precision == "fp16"):
            raise GhostsrError(
                self._advice(step, f"the loss or its gradient is not finite ({loss})")
            )
        mean = loss if self._mean is None else self._mean
        self._mean = _LOSS_MEMORY * mean + (1 - _LOSS_MEMORY) * loss
        self._lowest = min(self._lowest, self._mean)
        if self._mean > self._config.divergence * self._lowest:
            finding = (
                f"the mean loss {self._mean:.3g} is more than "
                f"{self._config.divergence:g} times its lowest {self._lowest:.3g}"
            )
            raise GhostsrError(self._advice(step, finding))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {"mean_loss": self._mean, "lowest_loss": self._lowest}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._mean, self._lowest = state["mean_loss"], state["lowest_loss"]

    def _advice(self, step: int, finding: str) -> str:
        return (
            f"step {step}: {finding}; lower training.lr (now {self._config.lr:g}), set "
            f"training.clip_gradient, or use precision fp32. The last good checkpoint is kept in "
            f"{self._kept}"
        )
