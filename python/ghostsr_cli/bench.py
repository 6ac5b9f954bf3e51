"""``ghostsr bench``: networks side by side, on this machine."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ghostsr_cli.options import Device, Dtype, torch_device, torch_dtype

if TYPE_CHECKING:
    from ghostsr_ext.benchmark import Comparison
    from ghostsr_ext.models import SRModel


def bench_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Files, or x2, x3, x4; the first is what others compare with."
        ),
    ],
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Size of the small picture.")
    ] = "320x180",
    scale: Annotated[
        int | None, typer.Option(min=1, help="Times to enlarge; the first model's if left out.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Runs to time.")] = 10,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A benchmark set, as of `ghostsr eval`, for PSNR."),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write everything here; - for stdout."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
) -> None:
    """Measure networks side by side: parameters, multiply-adds, latency, memory, PSNR.

    Their runs are interleaved, so that a busy machine is unfair to none of them.
    """
    from ghostsr_ext.benchmark import compare_networks
    from ghostsr_ext.checkpoints import load_model
    from ghostsr_ext.default_models import resolve_model
    from ghostsr_ext.errors import InputError

    sides = re.fullmatch(r"(\d+)x(\d+)", size)
    if sides is None:
        raise InputError(f"--size {size}: must be WIDTHxHEIGHT, such as 320x180")
    target = torch_device(device)
    networks = {
        name: load_model(resolve_model(model))
        for name, model in zip(short_names(models), models, strict=True)
    }
    served = next(iter(networks.values())).scale if scale is None else scale
    psnr = None if data is None else _psnr(networks, data, served, target)
    comparison = compare_networks(
        networks,
        scale=served,
        size=(int(sides[2]), int(sides[1])),
        batch=batch,
        repeats=repeats,
        device=target,
        dtype=torch_dtype(dtype),
        psnr=psnr,
        dataset=None if data is None else data.resolve().name,
    )
    to_standard_output = json_path == Path("-")
    if not to_standard_output:
        _print(comparison, markdown)
    if json_path is not None:
        _write(comparison, None if to_standard_output else json_path, overwrite)


def short_names(models: list[str]) -> list[str]:
    """Return file names without folder and suffix where those differ, else what was given.

    Raises:
        InputError: A model is named twice.
    """
    from ghostsr_ext.errors import InputError

    if len(set(models)) < len(models):
        raise InputError("MODEL: one is named twice")
    stems = [Path(model).stem for model in models]
    return stems if len(set(stems)) == len(stems) else models


def _psnr(networks: dict[str, SRModel], data: Path, scale: int, device: object) -> dict[str, float]:
    from ghostsr_ext.datasets import open_picture_set
    from ghostsr_ext.evaluation import evaluate

    pictures = open_picture_set(data)
    return {
        name: evaluate(network, pictures, scale, device=str(device)).psnr
        for name, network in networks.items()
    }


def _print(comparison: Comparison, markdown: bool) -> None:
    if markdown:
        typer.echo(comparison.markdown())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    rows = comparison.rows()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for position, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    console.print(table)
    console.print(comparison.conditions(), highlight=False)


def _write(comparison: Comparison, path: Path | None, overwrite: bool) -> None:
    from ghostsr_ext.files import atomic_write

    text = json.dumps(comparison.as_dict(), indent=2, allow_nan=False) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
