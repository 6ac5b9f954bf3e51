"""``ghostsr info``: what this installation is, or what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghostsr_cli.options import MODEL_HELP, JsonFile, Overwrite
from ghostsr_cli.output import STANDARD_OUTPUT, check_output, say, write_json

if TYPE_CHECKING:
    from ghostsr_ext.convolution_paths import LayerPath


def info_command(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP)] = None,
    json_path: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Describe a network layer by layer, or the installation.

    Of a network: architecture, scale, range of values, and of each layer its cost and the CPU
    kernel that computes it. Without MODEL: the installation, as a bug report needs it.
    """
    check_output(json_path, overwrite)
    content, text = _describe_installation() if model is None else _describe(model)
    if json_path != STANDARD_OUTPUT:
        say(text)
    if json_path is not None:
        write_json(content, json_path, overwrite)


def _describe_installation() -> tuple[dict[str, Any], str]:
    from ghostsr_ext import build_info

    content = build_info()
    lines = [f"{key.replace('_', ' '):20} {_plain(value)}" for key, value in content.items()]
    return content, "\n".join(lines)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _describe(file: str) -> tuple[dict[str, Any], str]:
    from ghostsr_ext.checkpoints import load_model
    from ghostsr_ext.convolution_paths import convolution_paths
    from ghostsr_ext.profiling import cost, describe
    from ghostsr_ext.text import printable

    model = load_model(file)
    paths = convolution_paths(model)
    content = {**describe(model), "convolution_paths": [asdict(layer) for layer in paths]}
    served = ", ".join(f"x{scale}" for scale in model.scales)
    low, high = 0, int(model.value_range)
    lines = [
        f"{content['architecture']}, {served}, {model.color.upper()} in {low}..{high}, "
        f"{content['ghost_layers']} of {content['convolutions']} convolutions are ghost layers",
        "hyperparameters: "
        + ", ".join(
            f"{printable(key, 60)}={printable(value, 200)}"
            for key, value in content["hyperparameters"].items()
        ),
        f"read as {printable(model.origin['read_as'])}",
        *(f"- {printable(found)}" for found in model.origin["evidence"]),
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
