"""``ghostsr eval``: the PSNR and SSIM of networks on benchmark sets."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from ghostsr_ext.datasets import PictureSet
    from ghostsr_ext.evaluation import EvaluationResult
    from ghostsr_ext.metrics import Protocol
    from ghostsr_ext.models import SRModel

_STANDARD_OUTPUT = Path("-")


class Channel(str, Enum):
    """What is compared."""

    y = "y"
    rgb = "rgb"


class Rounding(str, Enum):
    """Whether values are rounded to 8 bits."""

    uint8 = "uint8"
    float = "float"


class Dtype(str, Enum):
    """What a network computes in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    float64 = "float64"


def evaluate_command(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Checkpoint files, or x2, x3, x4.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR",
            help="A benchmark set: HR with LR_bicubic/X2, DIV2K_valid_HR with "
            "DIV2K_valid_LR_bicubic/X2, or a folder of pictures. May be given several times.",
        ),
    ],
    scale: Annotated[
        int | None,
        typer.Option(min=1, help="Times to enlarge; each scale of a network where left out."),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Also write all measurements here; - for stdout."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace FILE where it exists.")] = False,
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", help="Average over eight flips and turns.")
    ] = False,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of tiles in input pixels, to save memory.")
    ] = None,
    device: Annotated[str, typer.Option(help="Such as cpu, cuda or cuda:1.")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="What to compute in.")] = Dtype.float32,
    channel: Annotated[
        Channel | None,
        typer.Option(help="Compare luma, or all colours (DIV2K's way: shaves scale + 6)."),
    ] = None,
    y: Annotated[
        Rounding | None,
        typer.Option(help="Keep luma in float (EDSR, RDN) or round it to uint8 (CARN)."),
    ] = None,
    shave: Annotated[
        int | None, typer.Option(min=0, help="Pixels to leave out along each edge.")
    ] = None,
    low: Annotated[
        Rounding | None,
        typer.Option(
            help="Take the set's small pictures, or make them from the originals in float (VDSR)."
        ),
    ] = None,
) -> None:
    """Measure PSNR and SSIM of networks on benchmark sets.

    Without --channel, --y, --shave and --low, each network is measured as its own paper does it.
    The protocol is stored with the numbers.
    """
    from ghostsr_ext.checkpoints import load_model
    from ghostsr_ext.datasets import open_picture_set
    from ghostsr_ext.default_models import resolve_model
    from ghostsr_ext.evaluation import default_protocol
    from ghostsr_ext.metrics import Protocol

    target = _device(device)
    if json_path is not None and json_path != _STANDARD_OUTPUT:
        _check_output(json_path, overwrite)
    sets = [open_picture_set(folder) for folder in data]

    jobs = []
    for name in models:
        path = resolve_model(name)
        network = load_model(path)
        for served in _scales(path, network, scale):
            protocol = default_protocol(network, served)
            if channel is Channel.rgb:
                protocol = Protocol.div2k(served)
            given: dict[str, Any] = {
                "channel": channel and channel.value,
                "y_rounding": y and y.value,
                "shave": shave,
                "low_resolution": low and low.value,
            }
            given = {name: value for name, value in given.items() if value is not None}
            protocol = replace(protocol, **given)
            for pictures in sets:
                # Before anything is computed, so that a misplaced file does not cost an hour.
                pictures.pairs(served)
                jobs.append(_Job(path, network, pictures, served, protocol))

    options = {"self_ensemble": self_ensemble, "tile": tile, "device": target}
    results = _measure(jobs, dtype, options)
    to_standard_output = json_path == _STANDARD_OUTPUT
    _print_table(jobs, results, stderr=to_standard_output)
    if json_path is not None:
        _write_json(jobs, results, None if to_standard_output else json_path, overwrite)


@dataclass(frozen=True)
class _Job:
    path: Path
    network: SRModel
    pictures: PictureSet
    scale: int
    protocol: Protocol


def _device(name: str) -> torch.device:
    import torch

    from ghostsr_ext.errors import InputError

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # A torch without CUDA raises AssertionError for a CUDA device.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name}: cannot be used ({reason})") from error
    return device


def _check_output(path: Path, overwrite: bool) -> None:
    """Refuse before the work what ``atomic_write`` would refuse after it."""
    from ghostsr_ext.errors import InputError

    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"output {path}: cannot be written; name a file in a folder that exists")
    if path.exists() and not overwrite:
        raise InputError(f"output {path}: exists already; pass --overwrite to replace it")


def _scales(path: Path, network: SRModel, scale: int | None) -> tuple[int, ...]:
    from ghostsr_ext.errors import InputError

    if scale is None:
        return network.scales
    if scale not in network.scales:
        served = ", ".join(f"x{served}" for served in network.scales)
        raise InputError(f"{path}: serves {served}, not x{scale}")
    return (scale,)


def _measure(jobs: list[_Job], dtype: Dtype, options: dict[str, Any]) -> list[EvaluationResult]:
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from ghostsr_ext.errors import GhostsrError
    from ghostsr_ext.evaluation import evaluate

    results = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    total = sum(len(job.pictures.pairs(job.scale)) for job in jobs)
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("", total=total)
        for job in jobs:
            title = f"{job.path.name} {job.pictures.name} x{job.scale}"
            progress.update(task, description=title)
            try:
                result = evaluate(
                    job.network,
                    job.pictures,
                    job.scale,
                    job.protocol,
                    dtype=getattr(torch, dtype.value),
                    progress=lambda *_: progress.advance(task),
                    **options,
                )
            except GhostsrError as error:
                raise type(error)(f"{job.path}: {error}") from error
            results.append(result)
    return results


def _print_table(jobs: list[_Job], results: list[EvaluationResult], *, stderr: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("model", "set", "scale"):
        table.add_column(heading, overflow="fold")
    for heading in ("PSNR (dB)", "SSIM"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("protocol", overflow="fold")
    names = Counter(path.name for path in {job.path for job in jobs})
    for job, result in zip(jobs, results, strict=True):
        table.add_row(
            job.path.name if names[job.path.name] == 1 else str(job.path),
            result.dataset,
            f"x{result.scale}",
            f"{result.psnr:.3f}",
            f"{result.ssim:.4f}",
            _in_words(result),
        )
    Console(stderr=stderr).print(table)


def _in_words(result: EvaluationResult) -> str:
    protocol = result.protocol
    channel = "RGB" if protocol.channel == "rgb" else f"Y {protocol.y_rounding}"
    words = [channel, f"shave {protocol.shave}"]
    if protocol.low_resolution == "float":
        words.append("float input and output")
    elif result.inputs == "imresize":
        words.append("imresize input")
    if result.self_ensemble:
        words.append("self-ensemble")
    return ", ".join(words)


def _write_json(
    jobs: list[_Job], results: list[EvaluationResult], path: Path | None, overwrite: bool
) -> None:
    import torch

    import ghostsr_ext
    from ghostsr_ext.files import atomic_write

    rows = [
        {"model": str(job.path), **result.as_dict()}
        for job, result in zip(jobs, results, strict=True)
    ]
    document = {"ghostsr": ghostsr_ext.__version__, "torch": torch.__version__, "results": rows}
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
