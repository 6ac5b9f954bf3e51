"""Recording a network's work for inputs that come again, and replaying it.

Launching a small network's work piece by piece takes a GPU's host longer than the GPU computes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ghostsr_ext.inference.memory import is_out_of_memory

Work = Callable[[Tensor], Tensor]
"""What makes an output of an input."""

# Tiles of most pictures are of as many shapes: corners, edges and the middle. There are up to
# sixteen where a last tile is narrower than the margin, and more where inputs are turned.
_RECORDINGS = 9
# The first runs load kernels and let cuDNN choose its own, and a single picture pays nothing.
_RUNS_BEFORE = 2
# Shapes whose runs are counted.
_SHAPES = 64


class Recording(Protocol):
    """Recorded work. One call at a time is allowed, of all that one recorder has made."""

    def __call__(self, image: Tensor) -> Tensor:
        """Do the work on an input like the recorded one; the output belongs to the caller."""

    def release(self) -> None:
        """Give the memory back; the recording cannot be called any more."""


class Recorder(Protocol):
    """Records work on a device.

    Attributes:
        budget: Bytes that recordings should hold at most.
    """

    budget: int

    def is_free(self) -> bool:
        """Whether this thread's work may be recorded and replayed now."""

    def settings(self) -> Hashable:
        """Return the settings, beside the input, that decide what the work consists of."""

    def record(self, work: Work, image: Tensor) -> Recording:
        """Record what ``work`` does to an input like ``image``; it has been done in this thread.

        Raises:
            Exception: The work cannot be recorded, in whatever words its operators have for it.
        """

    def release(self) -> None:
        """Give the memory back that released recordings have left."""


@dataclass
class _Runs:
    """How often an input of a shape was computed since it was last recorded."""

    done: int = 0
    needed: int = _RUNS_BEFORE


class RecordedNetwork:
    """A network whose work is recorded for inputs that come again, and replayed.

    An input of a new shape, layout or type is computed as it is. From the third on the recording of
    the second is replayed. Few recordings are kept, those that were used last; one that had to go
    is made again after twice as many runs, so that shapes that take turns cost little. A network
    whose work cannot be recorded is computed as it is from then on. Calls from several threads at
    once are safe; replays wait for each other.

    Args:
        network: The network. It must do the same work for every input of a shape, and its
            parameters must stay where they are.
        recorder: What records it.
        fits: Whether an input is small enough to be recorded.
    """

    def __init__(
        self, network: Work, recorder: Recorder, fits: Callable[[Tensor], bool] = lambda _: True
    ) -> None:
        self._network = network
        self._recorder = recorder
        self._fits = fits
        self._lock = threading.Lock()
        self._recordings: OrderedDict[Hashable, Recording] = OrderedDict()
        self._runs: OrderedDict[Hashable, _Runs] = OrderedDict()
        self._cannot_be_recorded = False

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Compute the network's output for an input."""
        if self._cannot_be_recorded or not self._recorder.is_free():
            return self._network(image)
        key = image.shape, image.stride(), image.dtype, self._recorder.settings()
        with self._lock:
            recording = self._recordings.get(key)
            if recording is not None:
                self._recordings.move_to_end(key)
                return recording(image)
        output = self._network(image)
        with self._lock:
            if self._is_due(key) and self._fits(image):
                self._record(key, image)
        return output

    def release(self) -> bool:
        """Give the memory of all recordings back.

        Returns:
            Whether there were any.
        """
        with self._lock:
            return self._release()

    def _is_due(self, key: Hashable) -> bool:
        if self._cannot_be_recorded or key in self._recordings:
            return False
        runs = self._runs.setdefault(key, _Runs())
        self._runs.move_to_end(key)
        if len(self._runs) > _SHAPES:
            self._runs.popitem(last=False)
        runs.done += 1
        if runs.done < runs.needed:
            return False
        runs.done, runs.needed = 0, 2 * runs.needed
        return True

    def _record(self, key: Hashable, image: Tensor) -> None:
        if len(self._recordings) == _RECORDINGS:
            _, oldest = self._recordings.popitem(last=False)
            oldest.release()
        try:
            self._recordings[key] = self._recorder.record(self._network, image)
        # Operators have errors of their own for what cannot be recorded.
        except Exception as error:
            self._cannot_be_recorded = not _comes_of_memory(error)
            self._release()

    def _release(self) -> bool:
        found = bool(self._recordings)
        while self._recordings:
            self._recordings.popitem()[1].release()
        self._recorder.release()
        return found


def _comes_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it arose from, says that memory is exhausted."""
    while error is not None:
        if is_out_of_memory(error):
            return True
        error = error.__context__
    return False
