"""``ghostsr upscale``: enlarge pictures and videos."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ghostsr_cli.options import (
    MODEL_HELP,
    Device,
    Dtype,
    Overwrite,
    Tile,
    tile_side,
    torch_device,
    torch_dtype,
)
from ghostsr_cli.output import print_warnings_in_one_line, say

if TYPE_CHECKING:
    import torch

    from ghostsr_ext.inference import Outcome, UpscaleJob, Upscaler

_STANDARD_STREAM = "-"


def upscale_command(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURE",
            help="Pictures, videos, folders (all pictures in them), patterns such as '*.png', or - "
            "for standard input.",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="PICTURE", help="The same; may be given several times."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help=MODEL_HELP)
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "--scale",
            "-s",
            min=1,
            metavar="N",
            help="How many times to enlarge; without --model, this chooses x2, x3 or x4.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Folder of the results, or the file of a single one (big.png). By default results "
            "lie beside the pictures.",
        ),
    ] = None,
    image_format: Annotated[
        Literal["png", "jpg", "webp", "tif", "bmp"] | None,
        typer.Option("--format", help="Format of the results; by default that of each picture."),
    ] = None,
    quality: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="Quality of JPEG and WebP files.")
    ] = 95,
    metadata: Annotated[
        Literal["keep", "drop"],
        typer.Option(
            help="Whether to keep EXIF (place and camera), XMP, text, titles and chapters. The "
            "color profile and the resolution are always kept."
        ),
    ] = "keep",
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble",
            help="Average over eight flips and turns, which takes eight times as long.",
        ),
    ] = False,
    tile: Tile = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory that feature maps may take with --tile auto, such as 800M; by default "
            "512M, on a GPU four fifths of what is free.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N of the files. By default all; under torchrun each process "
            "does a part.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Enlarge pictures and videos.

    photo.png becomes photo_x2.png. Opacity, color profile, metadata and 16 bits are kept, EXIF
    orientation is applied. A second run continues the first: results that the same network made of
    the same pictures are passed over. The status is 1 if any file failed.
    """
    from ghostsr_ext.errors import InputError
    from ghostsr_ext.inference import Upscaler, plan_jobs
    from ghostsr_ext.inference import shard as part_of

    sources = [*(pictures or ()), *(inputs or ())]
    if not sources:
        raise InputError("PICTURE: none is given; name pictures, folders or patterns")
    streamed = _STANDARD_STREAM in sources
    if streamed and (len(sources) > 1 or output is not None):
        raise InputError(
            "PICTURE -: is given alone and without --output; it goes to standard output"
        )
    part = _shard(shard)
    print_warnings_in_one_line()
    upscaler = Upscaler(
        model or f"x{scale or 2}",
        scale=scale,
        device=_local_device(device),
        dtype=torch_dtype(dtype),
        self_ensemble=self_ensemble,
        tile=tile_side(tile),
        memory_budget=None if memory is None else _bytes(memory),
        # Only this thread uses the device; others read and write files.
        replay=True,
    )
    suffix = None if image_format is None else f".{image_format}"
    keep = metadata == "keep"
    if streamed:
        _upscale_stream(upscaler, suffix or ".png", quality, keep)
        return
    jobs = plan_jobs(sources, scale=upscaler.scale, output=output, suffix=suffix)
    own = part_of(jobs, *part)
    if part[1] > 1:
        say(f"part {part[0]} of {part[1]}: {len(own)} of {len(jobs)} files", error=True)
    outcome = _run(upscaler, own, quality, overwrite, keep)
    _summarize(outcome)
    if outcome.failed:
        raise typer.Exit(1)


def _bytes(text: str) -> int:
    from ghostsr_ext.errors import InputError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    number = float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ") if match else 0
    if number < 1:
        raise InputError(f"--memory {text}: must be a size such as 800M or 2G")
    return int(number)


def _shard(text: str | None) -> tuple[int, int]:
    """Which part of how many: as asked, as torchrun says, or all."""
    from ghostsr_ext.errors import InputError
    from ghostsr_ext.torchrun import place, started_by_torchrun

    if text is None:
        here = place()
        if not started_by_torchrun() and os.environ.get("WORLD_SIZE", "1") != "1":
            say(
                "ghostsr: warning: WORLD_SIZE is set, but torchrun did not start this process: all "
                "is done here; --shard I/N does a part",
                error=True,
            )
        return here.rank + 1, here.world_size
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard {text}: must be i/n with i from 1 to n")
    return int(match[1]), int(match[2])


def _local_device(name: str) -> torch.device:
    """The device; under torchrun each process of a machine takes the GPU of its own number."""
    import torch

    from ghostsr_ext.torchrun import place, started_by_torchrun

    device = torch_device(name)
    if device.type == "cuda" and device.index is None and started_by_torchrun():
        return torch.device("cuda", place().local_rank)
    return device


def _upscale_stream(upscaler: Upscaler, suffix: str, quality: int, keep_metadata: bool) -> None:
    import io
    import shutil

    from ghostsr_ext.imaging import read_picture, write_bands

    picture = read_picture(io.BytesIO(sys.stdin.buffer.read()))
    rows = picture.pixels.shape[0] * upscaler.scale
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"picture{suffix}")
        said = picture.metadata
        write_bands(
            path,
            upscaler.bands(picture),
            rows=rows,
            quality=quality,
            metadata=said if keep_metadata else said.needed(),
        )
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _run(
    upscaler: Upscaler,
    jobs: Sequence[UpscaleJob],
    quality: int,
    overwrite: bool,
    keep_metadata: bool,
) -> Outcome:
    from ghostsr_ext.inference import upscale_files

    with _progress(len(jobs)) as report:
        return upscale_files(
            upscaler,
            jobs,
            quality=quality,
            overwrite=overwrite,
            keep_metadata=keep_metadata,
            progress=report,
        )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[UpscaleJob, float], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    from ghostsr_ext.text import printable

    parts: dict[UpscaleJob, float] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)

        def report(job: UpscaleJob, part: float) -> None:
            progress.advance(task, part - parts.get(job, 0.0))
            parts[job] = part
            progress.update(task, description=f"{len(parts)}/{total} {printable(job.source.name)}")

        yield report


def _summarize(outcome: Outcome) -> None:
    from ghostsr_ext.text import printable

    for job in outcome.written:
        say(job.target)
    for job, note in outcome.notes:
        say(f"ghostsr: note: {job.source}: {note}", error=True)
    for job, error in outcome.failed:
        text = str(error) or type(error).__name__
        place = "" if str(job.source) in text else f"{job.source}: "
        say(f"ghostsr: error: {printable(place + text, 2000)}", error=True)
    if outcome.skipped or outcome.failed:
        counts = f"{len(outcome.written)} written, {len(outcome.skipped)} there already"
        say(f"{counts}, {len(outcome.failed)} failed", error=True)
