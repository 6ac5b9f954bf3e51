"""Adam's moments of many parameters, one behind the other in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


class JoinedMoments:
    """Moments of parameters that have taken equally many steps.

    Most parameters of a small network are so small that calling an operator takes longer than what
    it computes; here one call does for all of them. The states of the parameters keep their moments
    under ``"mean"`` and ``"square"``, as parts of the joined ones, and without them begin at zero.

    Args:
        states: The state of each parameter, which is changed.
        likes: A tensor for each parameter of the shape that its moments have; all of one dtype and
            device.
        reaches: What to multiply the direction of each parameter with, or None for nothing.

    Attributes:
        gradients: Where the gradient of each parameter has to be written before each step.
        directions: What :meth:`advance` found for each parameter.
    """

    def __init__(
        self, states: Sequence[State], likes: Sequence[Tensor], reaches: Sequence[Tensor | None]
    ) -> None:
        self._reaches = list(reaches)
        size = sum(like.numel() for like in likes)
        self._mean, self._square, self._gradient, self._direction, self._reach = (
            likes[0].new_zeros(size) for _ in range(5)
        )
        self._means = _parts(self._mean, likes)
        self._squares = _parts(self._square, likes)
        self.gradients = _parts(self._gradient, likes)
        self.directions = _parts(self._direction, likes)
        self._reach.fill_(1.0)
        for part, reach in zip(_parts(self._reach, likes), reaches, strict=True):
            if reach is not None:
                part.copy_(reach.expand_as(part))
        parts = zip(states, self._means, self._squares, strict=True)
        for state, mean, square in parts:
            if "mean" in state:
                mean.copy_(state["mean"])
                square.copy_(state["square"])
            state.update(mean=mean, square=square)

    def are_those_of(self, states: Iterable[State], reaches: Iterable[Tensor | None]) -> bool:
        """Whether the states still have these moments, and their directions these factors."""
        known = zip(states, self._means, self._squares, strict=True)
        return all(
            state.get("mean") is mean and state.get("square") is square
            for state, mean, square in known
        ) and all(reach is mine for reach, mine in zip(reaches, self._reaches, strict=True))

    def advance(self, step: int, betas: tuple[float, float], eps: float) -> None:
        """Take in the gradients, which are lost, and give the directions of this step.

        Args:
            step: Number of the step; 1 for the first.
            betas: Decays of the moments.
            eps: Added to the root of the second moment.
        """
        gradient, direction = self._gradient, self._direction
        self._mean.lerp_(gradient, 1 - betas[0])
        self._square.lerp_(gradient.mul_(gradient), 1 - betas[1])
        spread = torch.div(self._square, 1 - betas[1] ** step, out=gradient).sqrt_().add_(eps)
        torch.div(self._mean, 1 - betas[0] ** step, out=direction).div_(spread).mul_(self._reach)


def _parts(whole: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    pieces = whole.split([like.numel() for like in likes])
    return [piece.view(like.shape) for piece, like in zip(pieces, likes, strict=True)]
