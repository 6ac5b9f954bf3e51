"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import torch

Device = Annotated[
    str,
    typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."),
]
DtypeName = Literal["float32", "float16", "bfloat16", "float64"]
Dtype = Annotated[DtypeName, typer.Option(help="What to compute in.")]


def torch_device(name: str) -> torch.device:
    """Return a device that can be used.

    Args:
        name: As torch names it, or ``"auto"``.

    Raises:
        InputError: There is no such device here.
    """
    import torch

    from ghostsr_ext.errors import InputError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # A torch without CUDA raises AssertionError for a CUDA device.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name}: cannot be used ({reason})") from error
    return device


def torch_dtype(name: DtypeName) -> torch.dtype:
    """Return torch's type of a name."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype
