"""``ghostsr convert``: turn a pretrained network into a GhostSR network."""

from __future__ import annotations

import sys
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer


class MethodName(str, Enum):
    """How channels are chosen."""

    kmeans = "kmeans"
    filters = "filters"
    calibrated = "calibrated"
    prune = "prune"


class GhostOperationName(str, Enum):
    """How ghosts are made."""

    shift = "shift"
    depthwise = "depthwise"


class Scope(str, Enum):
    """What has a shift of its own."""

    channel = "channel"
    layer = "layer"


def convert_command(
    model: Annotated[Path, typer.Argument(metavar="IN", help="The network's checkpoint file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    ratio: Annotated[
        float, typer.Option(help="Part of each layer's channels that shifts make, in [0, 1).")
    ] = 0.5,
    method: Annotated[
        MethodName | None,
        typer.Option(
            help="kmeans: the paper's clustering of filters, to be trained afterwards. filters: "
            "shifted filters, without pictures. calibrated: fitted to feature maps on pictures; "
            "the default where pictures are given. prune: filters removed, for comparison."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of pictures of any kind; 40 or more are best."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Layers to convert, such as 'body.*.conv2'; may be given several times. "
            "By default those that the papers convert.",
        ),
    ] = None,
    max_shift: Annotated[int, typer.Option(help="Largest shift in pixels, 0 to 7.")] = 1,
    shift_scope: Annotated[
        Scope, typer.Option(help="Whether each ghost or each layer has a shift of its own.")
    ] = Scope.channel,
    target_macs: Annotated[
        float | None,
        typer.Option(
            metavar="PART",
            help="Instead of one ratio: part of the network's multiply-adds to keep, in (0, 1); "
            "layers get ratios by their measured sensitivity. Needs --calibration.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            help="Instead of one ratio: PSNR that may be lost on the calibration pictures.",
        ),
    ] = None,
    polish: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="Then train on the pictures for so long to give the dense network's output; "
            "0 also leaves out the short training that ends a calibration.",
            min=0,
        ),
    ] = None,
    affine: Annotated[
        bool, typer.Option("--affine", help="Give ghosts a gain and a bias; not in the paper.")
    ] = False,
    ghost_op: Annotated[
        GhostOperationName,
        typer.Option(help="depthwise: GhostNet's convolutions in place of shifts, for comparison."),
    ] = GhostOperationName.shift,
    seed: Annotated[int, typer.Option(help="Of what is random.")] = 0,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report here, as JSON.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files.")] = False,
) -> None:
    """Convert a pretrained network: half the multiply-adds, the same channels.

    Prints what became of each layer. The report is also stored in the file.
    """
    from rich.console import Console

    from ghostsr_ext.checkpoints import load_model, save_model
    from ghostsr_ext.conversion import convert

    for path in (output, report):
        if path is not None:
            _check_output(path, overwrite)
    dense = load_model(model)
    with _Bar() as bar:
        ghost, outcome = convert(
            dense,
            ratio,
            method=None if method is None else method.value,
            calibration=calibration,
            layers=None if layers is None else _matcher(layers),
            max_shift=max_shift,
            shift_scope=shift_scope.value,
            affine=affine,
            ghost_op=ghost_op.value,
            seed=seed,
            target_macs=target_macs,
            max_drop=max_drop,
            polish_minutes=polish,
            progress=bar.advance,
        )
    save_model(ghost, output, overwrite=overwrite)
    if report is not None:
        outcome.save(report, overwrite=overwrite)
    console = Console()
    console.print(outcome)
    console.print(f"wrote {output} in {outcome.seconds:.1f} s", highlight=False)


def _matcher(patterns: list[str]) -> Any:
    return lambda name, _: any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_output(path: Path, overwrite: bool) -> None:
    """Refuse before the work what ``atomic_write`` would refuse after it."""
    from ghostsr_ext.errors import InputError

    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"output {path}: cannot be written; name a file in a folder that exists")
    if path.exists() and not overwrite:
        raise InputError(f"output {path}: exists already; pass --overwrite to replace it")


class _Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
        self._progress = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=None)

    def advance(self, done: int, total: int, name: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=name)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
