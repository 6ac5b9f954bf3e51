"""CUDA graphs as recordings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ghostsr_ext.inference.graphs import Recorder, Recording, Work

# A part of a device's memory that nobody misses. Feature maps that take more are bound by
# arithmetic, and nothing is gained by recording: a device reads its memory in some tens of
# milliseconds, so this part of it in about one, while a launch takes microseconds.
_PART_OF_MEMORY = 32

# Torch allows one capture at a time in a process, and no replay of a graph beside it: every graph
# reads the state of the device's random generator, which belongs to the capture until its end.
_capturing = threading.Lock()
# Torch's allocator of host memory keeps a pointer to a graph whose capture did not end.
_unfinished: list[torch.cuda.CUDAGraph] = []


def device_recorder(device: torch.device) -> Recorder | None:
    """Return what records work on a device, or None where there is nothing to record with."""
    return CudaRecorder(device) if device.type == "cuda" else None


class CudaRecorder:
    """Records CUDA graphs.

    All graphs share one pool of memory, of the size that the largest of them needs, beside their
    inputs and outputs.

    Args:
        device: A CUDA device with an index.

    Attributes:
        budget: Bytes that recordings should hold at most: a thirty-second of the device's memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.budget: int = torch.cuda.get_device_properties(device).total_memory // _PART_OF_MEMORY
        self._device = device
        # Graphs share memory only if they were captured on the same stream.
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None
        # The last replay's end: the next one, maybe on another stream, uses the same memory.
        self._replayed = torch.cuda.Event()

    def is_free(self) -> bool:
        """Whether neither the current stream is being captured nor autocast is on.

        Autocast keeps cast weights until its end, and a graph would read them after it.
        """
        if torch.is_autocast_enabled("cuda"):
            return False
        with torch.cuda.device(self._device):
            return not torch.cuda.is_current_stream_capturing()

    def settings(self) -> Hashable:
        """Return torch's settings that decide which kernels run."""
        cudnn: Any = torch.backends.cudnn
        return (
            torch.are_deterministic_algorithms_enabled(),
            cudnn.enabled,
            cudnn.benchmark,
            cudnn.deterministic,
            cudnn.conv.fp32_precision,
        )

    def record(self, work: Work, image: Tensor) -> Recording:
        """Capture what ``work`` does to an input like ``image``."""
        with torch.cuda.device(self._device), _capturing:
            given = image.clone()
            # What the work took from torch's own memory until now is in the pool from now on.
            torch.cuda.empty_cache()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            try:
                output = _capture(graph, self._stream, lambda: work(given), self._pool)
            except Exception:
                self._abandon(graph)
                self._free_generator(given)
                raise
        return _CudaGraph(graph, given, output, self._replayed)

    def release(self) -> None:
        """Give the pool back to the device."""
        self._pool = None
        with torch.cuda.device(self._device), _capturing:
            torch.cuda.empty_cache()

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """Mend what torch leaves where CUDA refuses to end a capture.

        Its allocator would wait for the end of the capture for ever, and free no cached memory.
        """
        graph.reset()
        pool, self._pool = self._pool, None
        # It raises where the capture was ended rightly.
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(self._device.index, pool)
            torch._C._cuda_releasePool(self._device.index, pool)
            _unfinished.append(graph)

    def _free_generator(self, scratch: Tensor) -> None:
        """Mend the device's random generator where CUDA refuses to end a capture.

        Until torch 2.11 at least, ``CUDAGraph::capture_begin`` puts the default generator into a
        state in which it raises outside of the capture, and ``capture_end`` takes it out of it only
        after CUDA has ended the capture. The next capture that ends takes it out, too; this one
        needs no memory.
        """
        graph = torch.cuda.CUDAGraph()
        # The error of the capture that is mended says more.
        with suppress(RuntimeError):
            _capture(graph, torch.cuda.Stream(self._device), scratch.zero_)
            graph.reset()


def _capture(
    graph: torch.cuda.CUDAGraph,
    stream: torch.cuda.Stream,
    work: Callable[[], Tensor],
    pool: Any = None,
) -> Tensor:
    with torch.cuda.stream(stream):
        # Other threads may go on allocating memory and launching work on the device meanwhile.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            return work()
        finally:
            graph.capture_end()


class _CudaGraph:
    """A captured graph with the memory that it reads and writes."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        given: Tensor,
        output: Tensor,
        replayed: torch.cuda.Event,
    ) -> None:
        self._graph = graph
        self._given: Tensor | None = given
        self._output: Tensor | None = output
        self._replayed = replayed

    def __call__(self, image: Tensor) -> Tensor:
        assert self._given is not None
        assert self._output is not None
        with torch.cuda.device(image.device), _capturing:
            stream = torch.cuda.current_stream()
            stream.wait_event(self._replayed)
            self._given.copy_(image)
            self._graph.replay()
            output = self._output.clone()
            self._replayed.record(stream)
        return output

    def release(self) -> None:
        self._replayed.synchronize()
        self._graph.reset()
        self._given = self._output = None
