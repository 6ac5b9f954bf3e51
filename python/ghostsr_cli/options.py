"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import torch

    from ghostsr_ext.models import SRModel

MODEL_HELP = "A checkpoint file, or x2, x3 or x4 for a network of the package."
SET_HELP = "A benchmark set as `ghostsr eval` takes it, or samples for two photographs"

Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where to compute: cpu, cuda, cuda:1; auto takes a GPU if there is one, "
        "or what the variable GHOSTSR_DEVICE names.",
    ),
]
DtypeName = Literal["float32", "float16", "bfloat16", "float64"]
Dtype = Annotated[DtypeName, typer.Option(help="The type of numbers to compute in.")]
Tile = Annotated[
    str,
    typer.Option(
        metavar="auto|none|N",
        help="Side of the tiles in pixels of the small picture; auto: whole pictures where they "
        "fit into memory.",
    ),
]
Size = Annotated[
    str, typer.Option(metavar="WIDTHxHEIGHT", help="Size of the small picture that is timed.")
]
Repeats = Annotated[int, typer.Option(min=1, metavar="N", help="How many runs are timed.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Also write all values to this file; - for standard output."
    ),
]


def torch_device(name: str) -> torch.device:
    """Return a device that can be used.

    Args:
        name: The name that torch has for the device, or ``"auto"``.

    Raises:
        InputError: There is no such device here.
    """
    from ghostsr_ext.devices import usable_device

    return usable_device(name, "--device")


def torch_dtype(name: DtypeName) -> torch.dtype:
    """Return torch's type of a name."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def tile_side(text: str) -> int | Literal["auto"] | None:
    """Return the side of tiles in pixels, ``"auto"``, or None for whole pictures.

    Raises:
        InputError: The text is something else.
    """
    from ghostsr_ext.errors import InputError

    if text == "auto":
        return "auto"
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--tile: found {text!r}; auto, none, or a number from 1 is allowed")
    return int(text)


def picture_size(text: str) -> tuple[int, int]:
    """Return rows and columns of a size such as ``320x180``.

    Raises:
        InputError: The text is something else.
    """
    from ghostsr_ext.errors import InputError

    sides = re.fullmatch(r"(\d+)x(\d+)", text)
    if sides is None:
        raise InputError(f"--size: found {text!r}; WIDTHxHEIGHT such as 320x180 is allowed")
    return int(sides[2]), int(sides[1])


def load_networks(models: Sequence[str]) -> dict[str, SRModel]:
    """Read networks by the names that tables call them."""
    from ghostsr_ext.checkpoints import load_model

    return {
        name: load_model(model) for name, model in zip(short_names(models), models, strict=True)
    }


def short_names(models: Sequence[str]) -> list[str]:
    """Return file names without folder and suffix where those differ, else what was given.

    Raises:
        InputError: A model is named twice.
    """
    from ghostsr_ext.errors import InputError

    for model in models:
        if list(models).count(model) > 1:
            raise InputError(f"MODEL: found {model} twice; each network may be named once")
    stems = [Path(model).stem for model in models]
    return stems if len(set(stems)) == len(stems) else list(models)
