"""One process or several: what ``torchrun`` says, and the few collectives that training needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from ghostsr_ext.devices import usable_device
from ghostsr_ext.errors import InputError
from ghostsr_ext.torchrun import place

_LONG = timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        rank: Number of this one; 0 writes files and talks.
        world_size: How many there are.
        local_rank: Number of this one on its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value."""
        if self.world_size == 1:
            return value
        holder = [value]
        distributed.broadcast_object_list(holder, src=0)
        return holder[0]

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        if self.world_size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.world_size

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world_size > 1:
            distributed.barrier()

    def wait_long(self) -> None:
        """Wait for the other processes, however long one of them works."""
        if self.world_size > 1:
            # A group of its own, since torch gives up a wait in the others after minutes.
            patient = distributed.new_group(backend="gloo", timeout=_LONG)
            distributed.barrier(patient)
            distributed.destroy_process_group(patient)


@contextmanager
def processes(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that ``torchrun`` has started; alone without it.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1". Several processes take a GPU each, by their local
            rank, with NCCL; on CPUs they use gloo.

    Yields:
        The processes and this one's device.

    Raises:
        InputError: The device does not exist here, or torchrun's variables are wrong.
    """
    here = place()
    chosen = _device(device, here.local_rank, here.world_size)
    if here.world_size == 1:
        yield Processes(), chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), here.world_size, here.local_rank), chosen
    finally:
        distributed.destroy_process_group()


def restarted() -> bool:
    """Whether ``torchrun`` has started this process in the place of one that failed."""
    return place().restarts > 0


def _device(name: str, local_rank: int, world_size: int) -> torch.device:
    if name == "auto":
        name = str(usable_device(name, "training.device"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"training.device: {name!r} is no device") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"training.device: {name!r}; cpu and cuda are allowed")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise InputError(f"training.device: {name!r}, but this torch finds no CUDA device")
    index = local_rank if world_size > 1 else (device.index or 0)
    if index >= torch.cuda.device_count():
        raise InputError(
            f"training.device: cuda:{index}; this machine has {torch.cuda.device_count()}"
        )
    return torch.device("cuda", index)
