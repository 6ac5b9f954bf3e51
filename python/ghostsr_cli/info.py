"""``ghostsr info``: what this installation is, or what a checkpoint holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ghostsr_ext.convolution_paths import LayerPath


def info_command(
    file: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A checkpoint, or x2, x3 or x4.")
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="F", help="Also write all of it here; - for stdout."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace F where it exists.")] = False,
) -> None:
    """Describe a checkpoint: architecture, scale, range, and of each layer cost and CPU kernel.

    Without a checkpoint, describe the installation as a bug report needs it.
    """
    to_standard_output = json_path == Path("-")
    if file is None:
        from ghostsr_ext import build_info

        content = build_info()
        text = "\n".join(
            f"{key.replace('_', ' '):20} {_plain(value)}" for key, value in content.items()
        )
    else:
        content, text = _describe(file)
    if not to_standard_output:
        typer.echo(text)
    if json_path is not None:
        document = json.dumps(content, indent=2) + "\n"
        if to_standard_output:
            sys.stdout.write(document)
        else:
            from ghostsr_ext.files import atomic_write

            with atomic_write(json_path, overwrite=overwrite) as temporary:
                temporary.write_text(document, encoding="utf-8")


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _describe(file: str) -> tuple[dict[str, Any], str]:
    from ghostsr_ext.checkpoints import load_model
    from ghostsr_ext.convolution_paths import convolution_paths
    from ghostsr_ext.default_models import resolve_model
    from ghostsr_ext.profiling import cost, describe

    model = load_model(resolve_model(file))
    paths = convolution_paths(model)
    content = {**describe(model), "convolution_paths": [asdict(layer) for layer in paths]}
    served = ", ".join(f"x{scale}" for scale in model.scales)
    low, high = 0, int(model.value_range)
    lines = [
        f"{content['architecture']}, {served}, {model.colour.upper()} in {low}..{high}, "
        f"{content['ghost_layers']} of {content['convolutions']} convolutions are ghost layers",
        "hyperparameters: "
        + ", ".join(f"{key}={value}" for key, value in content["hyperparameters"].items()),
    ]
    return content, "\n".join([*lines, "", cost(model).table(), "", _paths_table(paths)])


def _paths_table(paths: Sequence[LayerPath]) -> str:
    width = max(len("layer"), *(len(layer.name) for layer in paths))
    rows = [f"{layer.name:{width}}  {layer.path:8}  {layer.packed_bytes:12,}" for layer in paths]
    kept = sum(layer.packed_bytes for layer in paths)
    return "\n".join(
        [
            "On this CPU, in float32 without gradients, for a picture of 1280x720:",
            f"{'layer':{width}}  {'path':8}  {'packed bytes':>12}",
            *rows,
            f"{'total':{width}}  {'':8}  {kept:12,}",
        ]
    )
