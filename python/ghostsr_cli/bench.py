"""``ghostsr bench``: networks side by side, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ghostsr_cli.options import (
    MODEL_HELP,
    SET_HELP,
    Device,
    Dtype,
    JsonFile,
    Overwrite,
    Repeats,
    Size,
    load_networks,
    picture_size,
    torch_device,
    torch_dtype,
)
from ghostsr_cli.output import STANDARD_OUTPUT, as_cells, check_output, say, write_json

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.table import Table

    from ghostsr_ext.benchmark import Comparison
    from ghostsr_ext.models import SRModel


def bench_command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help=f"{MODEL_HELP} Others are compared with the first."),
    ],
    size: Size = "320x180",
    scale: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many times to enlarge; by default the first network's."
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many pictures are computed at a time.")
    ] = 1,
    repeats: Repeats = 10,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=f"{SET_HELP}, to measure PSNR too."),
    ] = None,
    plain_torch: Annotated[
        bool,
        typer.Option(help="Compare with the first network in torch's own operators, too."),
    ] = True,
    device: Device = "auto",
    dtype: Dtype = "float32",
    json_path: JsonFile = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Measure cost, time, memory and PSNR side by side.

    The first row is the first network without this package: the same weights in torch's own
    operators. The speed of the other rows is relative to it. The runs of all rows take turns, so
    that other work on the machine disturbs all of them alike. On a GPU each network is timed a
    second time as a CUDA graph, as pictures of a size that comes again are enlarged.
    """
    from ghostsr_ext.benchmark import compare_networks

    check_output(json_path, overwrite)
    target = torch_device(device)
    networks = load_networks(models)
    served = next(iter(networks.values())).scale if scale is None else scale
    comparison = compare_networks(
        networks,
        scale=served,
        size=picture_size(size),
        batch=batch,
        repeats=repeats,
        plain_torch=plain_torch,
        device=target,
        dtype=torch_dtype(dtype),
        psnr=None if data is None else _psnr(networks, data, served, target),
        dataset=None if data is None else data.resolve().name,
    )
    if json_path != STANDARD_OUTPUT:
        _print(comparison, markdown)
    if json_path is not None:
        write_json(comparison.as_dict(), json_path, overwrite)


def _psnr(
    networks: dict[str, SRModel], data: Path, scale: int, device: torch.device
) -> dict[str, float]:
    from ghostsr_ext.datasets import open_picture_set
    from ghostsr_ext.evaluation import evaluate

    pictures = open_picture_set(data)
    return {
        name: evaluate(network, pictures, scale, device=device).psnr
        for name, network in networks.items()
    }


def _print(comparison: Comparison, markdown: bool) -> None:
    if markdown:
        say(comparison.markdown())
        return
    from rich.console import Console

    console = Console()
    rows = comparison.rows()
    name, *headings = rows[0]
    # What does not fit beside the networks' names goes into a table of its own below.
    while headings:
        most = next(
            (
                count
                for count in range(len(headings), 1, -1)
                if _width(console, _table(rows, [name, *headings[:count]])) <= console.width
            ),
            1,
        )
        console.print(_table(rows, [name, *headings[:most]]))
        headings = headings[most:]
    console.print(*as_cells([comparison.conditions()]))


def _table(rows: list[dict[str, str]], headings: list[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    for row in rows:
        table.add_row(*as_cells(row[heading] for heading in headings))
    return table


def _width(console: Console, table: Table) -> int:
    """The columns of a terminal in which no cell is folded."""
    from rich.measure import Measurement

    boundless = console.options.update(max_width=1 << 20)
    return Measurement.get(console, boundless, table).maximum
