"""Adam's moments of many parameters, one behind the other in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
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
        gradients: Where the gradient of each parameter has to be written before each step; each is
            contiguous. :meth:`advance` is done with what is there.
        directions: What :meth:`advance` found for each parameter. Until then it writes nothing
            there.
    """

    def __init__(
        self, states: Sequence[State], likes: Sequence[Tensor], reaches: Sequence[Tensor | None]
    ) -> None:
        sizes = [like.numel() for like in likes]
        self._ends = [0, *accumulate(sizes)]

        def joined() -> tuple[Tensor, list[Tensor]]:
            whole = likes[0].new_zeros(sum(sizes))
            pieces = zip(whole.split(sizes), likes, strict=True)
            return whole, [piece.view(like.shape) for piece, like in pieces]

        self._states, self._reaches = list(states), list(reaches)
        self._mean, self._means = joined()
        self._square, self._squares = joined()
        self._gradient, self.gradients = joined()
        self._direction, self.directions = joined()
        self._reach, factors = joined()
        for factor, reach in zip(factors, reaches, strict=True):
            factor.copy_(factor.new_ones(()) if reach is None else reach)
        for state, mean, square in zip(states, self._means, self._squares, strict=True):
            if "mean" in state:
                mean.copy_(state["mean"])
                square.copy_(state["square"])
            state.update(mean=mean, square=square)

    def are_current(self, reaches: Sequence[Tensor | None]) -> bool:
        """Whether the states still have these moments, and their directions these factors."""
        for state, mean, square in zip(self._states, self._means, self._squares, strict=True):
            if state.get("mean") is not mean or state.get("square") is not square:
                return False
        return all(reach is mine for reach, mine in zip(reaches, self._reaches, strict=True))

    def of_equal_shapes(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the gradients and the directions of parameters ``first`` to ``end`` - 1, stacked.

        Their shapes differ in the first axis at most, which is the one that is stacked.
        """
        inside = slice(self._ends[first], self._ends[end])
        shape = (-1, *self.gradients[first].shape[1:])
        return self._gradient[inside].view(shape), self._direction[inside].view(shape)

    def advance(self, step: int, betas: tuple[float, float], eps: float) -> None:
        """Take in the gradients, and give the directions of this step.

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
