"""The memory of maps on the CPU, which the operators keep for the next map."""

from __future__ import annotations

import torch
from torch import Tensor

from ghostsr_ext.ops.maps import empty_map as _empty_map
from ghostsr_ext.ops.registration import operators, register_fake

_release_memory = operators.release_memory.default
_new_map = operators.empty_map.default


def release_memory() -> int:
    """Give back the memory of maps that are freed but kept for the next ones; returns its bytes.

    The maps that the operators make on a CPU lie in blocks that are used again, since taking large
    ones from the system costs a network of small maps a quarter of its time. At most 256 MiB that
    are not in use are kept in a process. Such a map is a tensor like any other, except that its
    storage cannot be resized.
    """
    released: int = _release_memory()
    return released


def empty_map(like: Tensor, channels: int) -> Tensor:
    """Return a map in kept memory, not initialised.

    Args:
        like: [N, C, H, W] on a CPU.
        channels: Channels of the new map.

    Returns:
        [N, channels, H, W] of the dtype of ``like``, channels_last.

    Raises:
        RuntimeError: An argument is outside the allowed values; the message names it.
    """
    result: Tensor = _new_map(like, channels)
    return result


def _fake(like: Tensor, channels: int) -> Tensor:
    batch, _, height, width = like.shape
    return _empty_map(like, (batch, channels, height, width), torch.channels_last)


register_fake("empty_map", _fake)
