"""``ghostsr report``: a page about a converted network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ghostsr_cli.options import Device, torch_device


def report_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="DENSE GHOST [MORE...]",
            help="The parent, the network converted from it, and others to compare.",
        ),
    ],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="A benchmark set, as of `ghostsr eval`.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("report.html"),
    scale: Annotated[
        int | None, typer.Option(min=1, help="Times to enlarge; the parent's if left out.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer whose feature maps are shown; a middle one.")
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Size of the picture that is timed.")
    ] = "320x180",
    repeats: Annotated[int, typer.Option(min=1, help="Runs to time.")] = 10,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the pictures as PNG files here.")
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files.")] = False,
) -> None:
    """Write a page that shows what a conversion has gained and cost.

    It holds measurements, details side by side, feature maps, shifts and errors of each layer, in
    one HTML file that needs nothing beside it.
    """
    from ghostsr_cli.bench import short_names
    from ghostsr_ext.checkpoints import load_model
    from ghostsr_ext.datasets import open_picture_set
    from ghostsr_ext.default_models import resolve_model
    from ghostsr_ext.errors import InputError
    from ghostsr_ext.report import write_report

    sides = re.fullmatch(r"(\d+)x(\d+)", size)
    if sides is None:
        raise InputError(f"--size {size}: must be WIDTHxHEIGHT, such as 320x180")
    networks = {
        name: load_model(resolve_model(model))
        for name, model in zip(short_names(models), models, strict=True)
    }
    write_report(
        output,
        networks,
        open_picture_set(data),
        scale=scale,
        layer=layer,
        size=(int(sides[2]), int(sides[1])),
        repeats=repeats,
        device=torch_device(device),
        picture_folder=pictures,
        overwrite=overwrite,
        progress=lambda step: typer.echo(f"{step} ...", err=True),
    )
    typer.echo(output)
