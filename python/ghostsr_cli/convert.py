"""``ghostsr convert``: turn a pretrained network into a GhostSR network."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ghostsr_cli.options import MODEL_HELP, Overwrite, torch_device, torch_dtype
from ghostsr_cli.output import ProgressBar, check_output, print_warnings_in_one_line, say

if TYPE_CHECKING:
    from ghostsr_ext.conversion import Method


def convert_command(
    model: Annotated[str, typer.Argument(metavar="IN", help=MODEL_HELP)],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    ratio: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Part of each layer's channels that is made by shifting, in [0, 1).",
        ),
    ] = 0.5,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="calibrated: fitted to feature maps on pictures; the default where --calibration "
            "is given. filters: shifted filters, without pictures. kmeans: the paper's clustering "
            "of filters, the default without pictures; the network must be trained afterwards. "
            "prune: filters are removed, for comparison.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of pictures of any kind, those in the folders inside included; 40 or "
            "more are best.",
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Layers to convert, such as 'body.*.conv2'; may be given several times. "
            "By default those that the GhostSR paper converts.",
        ),
    ] = None,
    unsuitable: Annotated[
        Literal["leave", "convert"],
        typer.Option(
            help="What becomes of layers that cannot be fitted, such as channel attention on 1x1 "
            "maps, or that would save next to nothing.",
        ),
    ] = "leave",
    max_shift: Annotated[int, typer.Option(metavar="PIXELS", help="Largest shift, 0 to 7.")] = 1,
    shift_scope: Annotated[
        Literal["channel", "layer"],
        typer.Option(help="Whether each ghost or each layer has a shift of its own."),
    ] = "channel",
    target_macs: Annotated[
        float | None,
        typer.Option(
            metavar="PART",
            help="Instead of one ratio: the part of the network's multiply-adds to keep, in (0, "
            "1). Layers that can spare more channels get higher ratios. Needs --calibration.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            help="Instead of one ratio: the PSNR that may be lost on the calibration pictures, in "
            "dB.",
        ),
    ] = None,
    polish: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="Train for so many minutes more on the pictures, towards the dense network's "
            "output; 0 also leaves out the short training that ends a calibration.",
            min=0,
        ),
    ] = None,
    polish_steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Instead of --polish: the number of steps, which gives the same result on every "
            "machine.",
            min=0,
        ),
    ] = None,
    affine: Annotated[
        bool,
        typer.Option(
            "--affine", help="Give each ghost a gain and a bias, which the paper's have not."
        ),
    ] = False,
    ghost_op: Annotated[
        Literal["shift", "depthwise"],
        typer.Option(help="depthwise: GhostNet's convolutions in place of shifts, for comparison."),
    ] = "shift",
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of all random choices.")] = 0,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where to compute. The same command gives the same file on the cpu alone; cuda is "
            "for speed, and there the weights differ in their last bits from run to run. auto "
            "takes a GPU if there is one, or what the variable GHOSTSR_DEVICE names.",
        ),
    ] = "cpu",
    dtype: Annotated[
        Literal["float32", "float16"],
        typer.Option(
            help="The type that weights are stored in; float16 halves the file. Networks compute "
            "in float32 in any case, unless a command is told otherwise."
        ),
    ] = "float32",
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report here, as JSON.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a pretrained network into a GhostSR network.

    With --calibration the result is fitted to the dense network and ready to use. Without, it is
    the paper's starting point for training, and far from the dense network until it is trained.
    Prints what became of each layer; the report is also stored in the file. A polish that takes
    longer than some minutes is kept in OUT.unfinished, from where the same command goes on if it is
    stopped.
    """
    from rich.console import Console

    from ghostsr_ext.checkpoints import load_model, save_model
    from ghostsr_ext.checkpoints.native import check_output_name
    from ghostsr_ext.conversion import convert

    check_output(output, overwrite)
    check_output(report, overwrite)
    check_output_name(output)
    print_warnings_in_one_line()
    unfinished = output.with_name(output.name + ".unfinished")
    target = torch_device(device)
    dense = load_model(model).to(target)
    with ProgressBar() as bar:
        ghost, outcome = convert(
            dense,
            ratio,
            method=cast("Method | None", method),
            calibration=calibration,
            layers=None if layers is None else _matcher(layers),
            unsuitable=unsuitable,
            max_shift=max_shift,
            shift_scope=shift_scope,
            affine=affine,
            ghost_op=ghost_op,
            seed=seed,
            target_macs=target_macs,
            max_drop=max_drop,
            polish_minutes=polish,
            polish_steps=polish_steps,
            progress=bar.show,
            checkpoint=unfinished,
            overwrite=overwrite,
            notify=say,
        )
    save_model(ghost, output, dtype=torch_dtype(dtype), overwrite=overwrite)
    unfinished.unlink(missing_ok=True)
    if report is not None:
        outcome.save(report, overwrite=overwrite)
    Console().print(outcome)
    written = f"wrote {output} in {outcome.seconds:.1f} s"
    if outcome.needs_training:
        written += f"; to be trained before use ({outcome.method} alone is far from the network)"
    say(written)


def _matcher(patterns: list[str]) -> Any:
    return lambda name, _: any(fnmatchcase(name, pattern) for pattern in patterns)
