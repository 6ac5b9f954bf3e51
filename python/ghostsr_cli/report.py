"""``ghostsr report``: a page about a converted network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ghostsr_cli.options import (
    SET_HELP,
    Device,
    Overwrite,
    Repeats,
    Size,
    load_networks,
    picture_size,
    torch_device,
)
from ghostsr_cli.output import check_output, say


def report_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="First the dense network, then the one converted from it, then others to compare: "
            "checkpoint files, or x2, x3 or x4.",
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help=f"{SET_HELP}.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")
    ] = Path("report.html"),
    scale: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many times to enlarge; by default the first network's."
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The layer whose feature maps are shown; by default a middle one."
        ),
    ] = None,
    size: Size = "320x180",
    repeats: Repeats = 10,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the pictures as PNG files here.")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Write a page on what a conversion gains and costs.

    It holds measurements, details side by side, feature maps, shifts and errors of each layer, in
    one HTML file that needs nothing beside it.
    """
    from ghostsr_ext.datasets import open_picture_set
    from ghostsr_ext.report import write_report

    check_output(output, overwrite)
    write_report(
        output,
        load_networks(models),
        open_picture_set(data),
        scale=scale,
        layer=layer,
        size=picture_size(size),
        repeats=repeats,
        device=torch_device(device),
        picture_folder=pictures,
        overwrite=overwrite,
        progress=lambda step: say(f"{step} ...", error=True),
    )
    say(output)
