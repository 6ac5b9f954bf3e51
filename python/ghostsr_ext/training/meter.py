"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

Part = TypeVar("Part")


class Reading(NamedTuple):
    """What a meter has counted since it was read last.

    Attributes:
        loss: Mean of the losses that it was told.
        images_per_second: Patches a second, pauses left out.
        data_share: Part of the time spent waiting for patches.
        other_share: Part of the time spent neither waiting nor computing.
    """

    loss: float
    images_per_second: float
    data_share: float
    other_share: float


class Meter:
    """Tells where the time goes.

    Args:
        batch_size: Patches in a step, over all processes.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._reset(time.perf_counter())

    def waiting(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Pass on the parts of each step and count the time until they come."""
        while True:
            self._mark = time.perf_counter()
            share = next(parts, None)
            now = time.perf_counter()
            self._data += now - self._mark
            if share is None:
                return
            self._mark = now
            yield share

    def computed(self, loss: float | None) -> None:
        """Count the time since the parts came as computation."""
        now = time.perf_counter()
        self._compute += now - self._mark
        self._mark = now
        self._steps += 1
        if loss is not None:
            self._losses.append(loss)

    def pause(self) -> None:
        """Leave the time since the last mark out."""
        now = time.perf_counter()
        self._paused += now - self._mark
        self._mark = now

    def take(self) -> Reading:
        """Return what was counted, and begin anew."""
        now = time.perf_counter()
        total = max(now - self._began - self._paused, 1e-9)
        reading = Reading(
            loss=sum(self._losses) / len(self._losses),
            images_per_second=self._steps * self._batch_size / total,
            data_share=self._data / total,
            other_share=max(0.0, 1 - (self._data + self._compute) / total),
        )
        self._reset(now)
        return reading

    def _reset(self, now: float) -> None:
        self._losses: list[float] = []
        self._steps = 0
        self._data = self._compute = self._paused = 0.0
        self._began = self._mark = now
