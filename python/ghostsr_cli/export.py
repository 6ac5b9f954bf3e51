"""``ghostsr export``: networks for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ghostsr_cli.options import MODEL_HELP, Overwrite
from ghostsr_cli.output import check_output, say


def export_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="What to write: .onnx, .xml (OpenVINO), .param (ncnn) or .pt2 (torch.export).",
        ),
    ],
    scale: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many times to enlarge; by default the network's."
        ),
    ] = None,
    ghost_as: Annotated[
        Literal["depthwise", "slices"],
        typer.Option(
            help="What ghost channels become: depthwise convolutions with one 1 in each filter, or "
            "slices (only in .onnx and .pt2)."
        ),
    ] = "depthwise",
    half: Annotated[bool, typer.Option("--half", help="Store weights in float16.")] = False,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled",
            help="Put machine code for this processor into the .pt2 file (AOTInductor).",
        ),
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="LEVELS",
            help="Largest difference from torch to accept, where white is 255. By default 0.005 "
            "(with --half 1), or four times the rounding error of torch itself where that is more.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a network for another runtime and check it there.

    The runtime is ONNX Runtime, OpenVINO, ncnn or torch alone. What is written needs no operator of
    this package. Height and width are free.
    """
    from ghostsr_ext.checkpoints import load_model
    from ghostsr_ext.export import export_model

    check_output(output, overwrite)

    network = load_model(model)
    say(f"tracing {network.architecture} with torch; attention may take minutes", error=True)
    parity = export_model(
        network,
        output,
        scale=scale,
        ghost_as=ghost_as,
        half=half,
        compiled=compiled,
        tolerance=tolerance,
        overwrite=overwrite,
    )
    say(f"{output}: {parity.runtime} differs by at most {parity.largest:.2g} (of 0..255)")
