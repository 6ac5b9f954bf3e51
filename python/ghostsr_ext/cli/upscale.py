"""``ghostsr upscale``: enlarge pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def upscale_command(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Picture files.")],
    model: Annotated[str | None, typer.Option(metavar="M", help="x2 or a file.")] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="Times to enlarge.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder; beside each picture if left out.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files.")] = False,
) -> None:
    """Enlarge pictures."""
    from ghostsr_ext.imaging import read_picture, write_picture
    from ghostsr_ext.inference import Upscaler

    upscaler = Upscaler(model or f"x{scale or 2}", scale=scale)
    for path in pictures:
        folder = path.parent if output is None else output
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{path.stem}_x{upscaler.scale}{path.suffix}"
        write_picture(target, upscaler(read_picture(path)), overwrite=overwrite)
        typer.echo(target)
