"""What a polished network shall give, from the dense one alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.models import SRModel

BATCH = 4
"""How many inputs are computed at once."""

_NEAR = 0.25
_MOST_TURNED = 1024


class Wanted:
    """What a network shall give for the inputs of one pass, flipped and turned.

    For an ``SRModel`` it is the mean over the eight symmetries of what the dense network gives, if
    that is near to what it gives for the input alone, next to how far the other network is. With
    a network that invents its details, the mean is a blurred picture of another kind; what it
    gives for each turned input is wanted then.
    """

    def __init__(
        self, model: nn.Module, dense: nn.Module, inputs: Tensor, arguments: Mapping[str, Any]
    ) -> None:
        self._dense, self._inputs, self._arguments = dense, inputs, arguments
        self.symmetric = isinstance(dense, SRModel)
        self.ensemble = self.symmetric and self._is_near(model)
        self._upright = self._outputs(inputs)
        self._turned: dict[tuple[int, int], Tensor] = {}

    def __getitem__(self, index: slice) -> Tensor:
        return self._upright[index]

    def extend(self, inputs: Tensor) -> Tensor:
        """Take further inputs, and return what is wanted for them."""
        upright = self._outputs(inputs)
        self._inputs = torch.cat((self._inputs, inputs))
        self._upright = torch.cat((self._upright, upright))
        return upright

    def batch(self, index: Tensor, turn: int) -> tuple[Tensor, Tensor]:
        """Return some inputs, turned, and what is wanted for them."""
        inputs = _turned(self._inputs[index], turn)
        if self.ensemble or turn == 0:
            return inputs, _turned(self._upright[index], turn)
        keys = [(number, turn) for number in index.tolist()]
        for place, key in enumerate(keys):
            if key not in self._turned:
                # Alone, so that what is wanted for an input does not depend on its company.
                with torch.no_grad():
                    self._turned[key] = self._dense(inputs[place : place + 1], **self._arguments)
        outputs = torch.cat([self._turned[key] for key in keys])
        for key in list(self._turned)[: max(0, len(self._turned) - _MOST_TURNED)]:
            del self._turned[key]
        return inputs, outputs

    @torch.no_grad()
    def _outputs(self, inputs: Tensor) -> Tensor:
        if self.ensemble:
            return _mean_over_symmetries(self._dense, inputs, self._arguments)
        return torch.cat([self._dense(batch, **self._arguments) for batch in inputs.split(BATCH)])

    @torch.no_grad()
    def _is_near(self, model: nn.Module) -> bool:
        some = self._inputs[:BATCH]
        alone = self._dense(some, **self._arguments)
        mean = _mean_over_symmetries(self._dense, some, self._arguments)
        found = model(some, **self._arguments)
        apart = float((mean - alone).square().mean())
        return apart < _NEAR * float((found - alone).square().mean())


@torch.no_grad()
def _mean_over_symmetries(dense: nn.Module, inputs: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    parts = []
    for batch in inputs.split(BATCH):
        total = torch.zeros(())
        for turn in range(8):
            output = dense(_turned(batch, turn), **arguments)
            total = total + _turned(output, turn, back=True)
        parts.append(total / 8)
    return torch.cat(parts)


def _turned(maps: Tensor, turn: int, *, back: bool = False) -> Tensor:
    """Apply one of the eight symmetries of the square, or undo it."""
    quarters, mirrored = turn % 4, turn >= 4
    if back:
        maps = torch.rot90(maps, -quarters, (2, 3))
        return maps.flip(3) if mirrored else maps
    return torch.rot90(maps.flip(3) if mirrored else maps, quarters, (2, 3))
