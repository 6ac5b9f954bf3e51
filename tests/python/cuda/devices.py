"""The devices that a test can run on, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from ghostsr_ext.ops import library
from torch import Tensor


class Device:
    """A device, with what a test may want of it."""

    name: str

    def place(self, value: Any) -> Any:
        """Copy a tensor, or those in a mapping, to the device; its layout is kept."""
        if isinstance(value, dict):
            return {key: self.place(item) for key, item in value.items()}
        if not isinstance(value, Tensor):
            return value
        if value.device.type == self.name:
            return value.clone()
        return value.to(self.name)

    def streams(self, count: int) -> list[AbstractContextManager[Any]]:
        """Return contexts whose work may run at the same time."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Wait for all work."""
        raise NotImplementedError

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Return what ``work`` makes, and a function that does the work into it again."""
        raise NotImplementedError


class CpuDevice(Device):
    """The processor, which does everything in order."""

    name = "cpu"

    def streams(self, count: int) -> list[AbstractContextManager[Any]]:
        return [nullcontext() for _ in range(count)]

    def synchronize(self) -> None:
        return

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        result = work()

        def replay() -> None:
            result.copy_(work())

        return result, replay


class CudaDevice(Device):
    """The current GPU."""

    name = "cuda"

    @staticmethod
    def obstacle() -> str | None:
        """Return why there is no GPU to test on, or None where there is one."""
        if not torch.cuda.is_available():
            return "no GPU"
        return None if library.cuda_status() == "loaded" else "no CUDA operators"

    def streams(self, count: int) -> list[AbstractContextManager[Any]]:
        made: list[AbstractContextManager[Any]] = []
        for _ in range(count):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            made.append(torch.cuda.stream(stream))
        return made

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        with self.streams(1)[0]:
            # cuDNN chooses its plans before a capture, not in it.
            for _ in range(3):
                work()
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()
        graph.replay()
        return result, graph.replay
