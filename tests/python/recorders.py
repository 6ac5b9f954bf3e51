"""A recorder for the CPU that keeps to what a recorder of CUDA graphs must keep to."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class CpuRecorder:
    """Computes anew where a GPU replays, in one input and one output that all calls share.

    A call that overlaps with another one of the same recorder, or comes after the release, fails.
    """

    def __init__(self) -> None:
        self.budget = 1 << 40
        self.free = True
        self.setting: Hashable = None
        self.error: Exception | None = None
        self.recorded: list[tuple[int, ...]] = []
        self.alive: list[tuple[int, ...]] = []
        self.replays = 0
        self.releases = 0
        self.busy = False

    def is_free(self) -> bool:
        return self.free

    def settings(self) -> Hashable:
        return self.setting

    def record(self, work: Callable[[Tensor], Tensor], image: Tensor) -> CpuRecording:
        self.recorded.append(tuple(image.shape))
        if self.error is not None:
            raise self.error
        given = image.clone()
        return CpuRecording(self, work, given, work(given))

    def release(self) -> None:
        self.releases += 1


class CpuRecording:
    """What ``CpuRecorder`` records."""

    def __init__(
        self,
        recorder: CpuRecorder,
        work: Callable[[Tensor], Tensor],
        given: Tensor,
        output: Tensor,
    ) -> None:
        self._recorder = recorder
        self._work = work
        self._given = given
        self._output = output
        self._shape = tuple(given.shape)
        recorder.alive.append(self._shape)

    def __call__(self, image: Tensor) -> Tensor:
        assert self._shape in self._recorder.alive, "replayed after its release"
        assert not self._recorder.busy, "replays overlap"
        assert image.stride() == self._given.stride()
        self._recorder.busy = True
        self._given.copy_(image)
        time.sleep(0.001)
        self._output.copy_(self._work(self._given))
        output = self._output.clone()
        self._recorder.replays += 1
        self._recorder.busy = False
        return output

    def release(self) -> None:
        self._recorder.alive.remove(self._shape)
        self._given = self._output = torch.empty(0)
