"""``ghostsr eval``: the PSNR and SSIM of networks on benchmark sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ghostsr_cli.options import (
    MODEL_HELP,
    Device,
    Dtype,
    JsonFile,
    Overwrite,
    Tile,
    tile_side,
    torch_device,
    torch_dtype,
)
from ghostsr_cli.output import (
    STANDARD_OUTPUT,
    ProgressBar,
    as_cells,
    check_output,
    print_warnings_in_one_line,
    write_json,
)

if TYPE_CHECKING:
    from ghostsr_ext.datasets import PictureSet
    from ghostsr_ext.evaluation import EvaluationResult
    from ghostsr_ext.metrics import Protocol
    from ghostsr_ext.models import SRModel


def evaluate_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR",
            help="A benchmark set: HR with LR_bicubic/X2, DIV2K_valid_HR with "
            "DIV2K_valid_LR_bicubic/X2, or a folder of pictures; samples for two photographs. May "
            "be given several times.",
        ),
    ],
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many times to enlarge; by default each scale that a network has.",
        ),
    ] = None,
    json_path: JsonFile = None,
    overwrite: Overwrite = False,
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble",
            help="Average over eight flips and turns, which takes eight times as long.",
        ),
    ] = False,
    tile: Tile = "auto",
    device: Device = "auto",
    dtype: Dtype = "float32",
    channel: Annotated[
        Literal["y", "rgb"] | None,
        typer.Option(
            help="Compare luma, or all colors (as DIV2K does, with a border of scale + 6)."
        ),
    ] = None,
    y: Annotated[
        Literal["uint8", "float"] | None,
        typer.Option(help="Keep luma in float (EDSR, RDN) or round it to uint8 (CARN)."),
    ] = None,
    crop_border: Annotated[
        int | None,
        typer.Option(
            "--crop-border",
            "--shave",
            min=0,
            metavar="PIXELS",
            help="Width of the border of the enlarged picture that is left out.",
        ),
    ] = None,
    low: Annotated[
        Literal["uint8", "float"] | None,
        typer.Option(
            help="Take the set's small pictures, or make them from the originals in float (VDSR)."
        ),
    ] = None,
) -> None:
    """Measure PSNR and SSIM on benchmark sets.

    Without --channel, --y, --crop-border and --low, each network is measured as its own paper
    does it. The protocol is stored with the numbers.
    """
    check_output(json_path, overwrite)
    options = {
        "self_ensemble": self_ensemble,
        "tile": tile_side(tile),
        "device": torch_device(device),
        "dtype": torch_dtype(dtype),
    }
    given = {"channel": channel, "y_rounding": y, "crop_border": crop_border, "low_resolution": low}
    tasks = _plan(models, data, scale, given)
    results = _measure(tasks, options)
    _print_table(tasks, results, stderr=json_path == STANDARD_OUTPUT)
    if json_path is not None:
        write_json(_document(tasks, results), json_path, overwrite)


@dataclass(frozen=True)
class _Evaluation:
    """One network to measure on one set."""

    model: str
    network: SRModel
    pictures: PictureSet
    scale: int
    protocol: Protocol


def _plan(
    models: Sequence[str], data: Sequence[Path], scale: int | None, given: dict[str, Any]
) -> list[_Evaluation]:
    """Read the networks, and check the sets before anything is computed."""
    from ghostsr_ext.checkpoints import load_model
    from ghostsr_ext.datasets import open_picture_set

    print_warnings_in_one_line()
    sets = [open_picture_set(folder) for folder in data]
    tasks = []
    for model in models:
        network = load_model(model)
        served_scales = (
            network.scales if scale is None else [network.served_scale(scale, f"{model}, scale")]
        )
        for served in served_scales:
            protocol = _protocol(network, served, given)
            for pictures in sets:
                pictures.pairs(served)
                tasks.append(_Evaluation(model, network, pictures, served, protocol))
    return tasks


def _protocol(network: SRModel, scale: int, given: dict[str, Any]) -> Protocol:
    from ghostsr_ext.evaluation import default_protocol
    from ghostsr_ext.metrics import Protocol

    start = Protocol.div2k(scale) if given["channel"] == "rgb" else default_protocol(network, scale)
    return replace(start, **{key: value for key, value in given.items() if value is not None})


def _measure(tasks: Sequence[_Evaluation], options: dict[str, Any]) -> list[EvaluationResult]:
    from ghostsr_ext.errors import GhostsrError
    from ghostsr_ext.evaluation import evaluate

    results = []
    total = sum(len(task.pictures.pairs(task.scale)) for task in tasks)
    finished = 0
    with ProgressBar() as bar:
        for task in tasks:
            title = f"{Path(task.model).name} {task.pictures.name} x{task.scale}"
            try:
                result = evaluate(
                    task.network,
                    task.pictures,
                    task.scale,
                    task.protocol,
                    progress=partial(_show, bar, finished, total, title),
                    **options,
                )
            except GhostsrError as error:
                raise type(error)(f"{task.model}: {error}") from error
            finished += len(result.images)
            results.append(result)
    return results


def _show(bar: ProgressBar, before: int, total: int, title: str, done: int, *_: object) -> None:
    bar.show(before + done, total, title)


def _print_table(
    tasks: Sequence[_Evaluation], results: Sequence[EvaluationResult], *, stderr: bool
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("model", "set", "scale"):
        table.add_column(heading, overflow="fold")
    for heading in ("PSNR (dB)", "SSIM"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("protocol", overflow="fold")
    names = Counter(Path(model).name for model in {task.model for task in tasks})
    for task, result in zip(tasks, results, strict=True):
        name = Path(task.model).name
        row = (
            name if names[name] == 1 else task.model,
            result.dataset,
            f"x{result.scale}",
            f"{result.psnr:.3f}",
            f"{result.ssim:.4f}",
            _in_words(result),
        )
        table.add_row(*as_cells(row))
    Console(stderr=stderr).print(table)


def _in_words(result: EvaluationResult) -> str:
    protocol = result.protocol
    channel = "RGB" if protocol.channel == "rgb" else f"Y {protocol.y_rounding}"
    words = [channel, f"crop border {protocol.crop_border}"]
    if protocol.low_resolution == "float":
        words.append("float input and output")
    elif result.inputs == "imresize":
        words.append("imresize input")
    if result.self_ensemble:
        words.append("self-ensemble")
    return ", ".join(words)


def _document(
    tasks: Sequence[_Evaluation], results: Sequence[EvaluationResult]
) -> dict[str, object]:
    import torch

    import ghostsr_ext

    rows = [
        {"model": task.model, **result.as_dict()}
        for task, result in zip(tasks, results, strict=True)
    ]
    return {"ghostsr": ghostsr_ext.__version__, "torch": torch.__version__, "results": rows}
