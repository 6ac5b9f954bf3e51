"""Checks of where and in what type to compute."""

from __future__ import annotations

import os

import torch

from ghostsr_ext.errors import InputError

FLOATING_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The types that networks compute in."""

AUTOMATIC_DEVICE = "GHOSTSR_DEVICE"
"""The environment variable that says what ``"auto"`` takes."""


def usable_device(device: torch.device | str, argument: str = "device") -> torch.device:
    """Return a device that tensors can be put on.

    Args:
        device: A device or its name, such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` takes a CUDA
            device if there is one, or whatever the environment variable ``GHOSTSR_DEVICE`` names.
        argument: What the error calls it.

    Raises:
        InputError: There is no such device here.
    """
    if device == "auto":
        asked = os.environ.get(AUTOMATIC_DEVICE, "auto")
        if asked != "auto":
            return usable_device(asked, AUTOMATIC_DEVICE)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    # A torch without CUDA raises AssertionError for a CUDA device.
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"{argument}: found {str(device)!r}, which cannot be used here ({reason}); "
            "auto, cpu, cuda and cuda:N are allowed"
        ) from error
    return found


def floating_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype`` if networks can compute in it.

    Args:
        dtype: One of ``FLOATING_DTYPES``.

    Raises:
        InputError: It is something else, such as the name of a type.
    """
    if dtype not in FLOATING_DTYPES:
        found = repr(dtype) if isinstance(dtype, str) else str(dtype)
        allowed = ", ".join(map(str, FLOATING_DTYPES))
        raise InputError(f"dtype: found {found}; allowed are {allowed}")
    return dtype
