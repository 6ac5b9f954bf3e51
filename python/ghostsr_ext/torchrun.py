"""What ``torchrun`` tells the processes that it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ghostsr_ext.errors import InputError

_STARTED = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class Place:
    """The place of this process among those that ``torchrun`` started.

    Attributes:
        rank: The number of this process, from 0.
        world_size: How many there are.
        local_rank: Its number on its machine.
        restarts: How often torchrun has started the processes again.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    restarts: int = 0


def started_by_torchrun() -> bool:
    """Whether ``torchrun`` started this process or one that this process descends from."""
    return _STARTED in os.environ


def place() -> Place:
    """Return the place of this process; alone unless ``torchrun`` started it.

    ``RANK`` and its like do not count without torchrun's own mark: job schedulers and notebooks
    leave them set for programs that they are not meant for.

    Raises:
        InputError: torchrun's variables are no numbers or do not fit together.
    """
    if not started_by_torchrun():
        return Place()
    size = _number("WORLD_SIZE", 1, 1, 2**31)
    return Place(
        rank=_number("RANK", 0, 0, size),
        world_size=size,
        local_rank=_number("LOCAL_RANK", 0, 0, size),
        restarts=_number("TORCHELASTIC_RESTART_COUNT", 0, 0, 2**31),
    )


def _number(name: str, default: int, first: int, end: int) -> int:
    text = os.environ.get(name, str(default))
    if not (text.isdecimal() and len(text) < 12 and first <= int(text) < max(end, first + 1)):
        raise InputError(
            f"environment variable {name}: found {text!r}; a whole number from {first} to "
            f"{end - 1} is allowed under torchrun"
        )
    return int(text)
