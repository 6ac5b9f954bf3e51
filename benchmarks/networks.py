"""Measure whole networks: dense and ghost, in plain torch and through this package's layers.

Networks enlarge by 2, Real-ESRGAN's by 4, with random weights and shifts. The reference is the
dense network in plain torch, channels last. "torch's convolutions" are the package's layers within
``ops.convolution_path("aten")``: torch convolves, and the rest of a layer is one pass. Outputs of
the ways to compute one network are compared first.

    python benchmarks/networks.py --markdown docs/speed.md
    python benchmarks/networks.py --dtype bfloat16 --markdown docs/speed.md --section bfloat16
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext import ops
from ghostsr_ext.packed_weights import packed_weight_bytes
from measuring import (
    Clock,
    ClockOption,
    JsonOutput,
    MarkdownOutput,
    Rounds,
    Threads,
    conditions,
    conditions_text,
    markdown_table,
    publish,
    ratio,
    run_interleaved,
)
from plain_networks import PlainNetwork, make_network, usual_size
from torch import Tensor, nn

REFERENCE = "dense, torch"

# Beside the variation of the output. Rounding to the eight bits of bfloat16 in each layer adds up.
LARGEST_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


class Dtype(str, Enum):
    """What networks are computed in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def _forward(
    network: nn.Module, image: Tensor, path: ops.ConvolutionPath = "auto"
) -> Callable[[], Tensor]:
    network.to(image.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run() -> Tensor:
        with torch.inference_mode(), ops.convolution_path(path):
            output: Tensor = network(image)
            return output

    return run


def relative_difference(output: Tensor, expected: Tensor) -> float:
    """Return the root mean square of the difference over that of the expected variation."""
    difference = (output.double() - expected.double()).square().mean().sqrt()
    return (difference / expected.double().std()).item()


def measure(
    preset: str, size: int, rounds: int, clock: Clock, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Return the measurement of one network as JSON values."""
    dense, ghost = (make_network(preset, ghost=ghost) for ghost in (False, True))
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    image = (image * dense.value_range).to(dtype, memory_format=torch.channels_last)
    ways = {
        REFERENCE: _forward(PlainNetwork(dense), image),
        "dense, ghostsr": _forward(dense, image),
        "ghost, torch": _forward(PlainNetwork(ghost), image),
        "ghost, ghostsr with torch's convolutions": _forward(ghost, image, "aten"),
        "ghost, ghostsr": _forward(ghost, image),
    }
    differences = {
        name: relative_difference(way(), ways[f"{name.split(',')[0]}, torch"]())
        for name, way in ways.items()
    }
    for name, difference in differences.items():
        if not difference <= LARGEST_DIFFERENCE[dtype]:
            raise RuntimeError(f"{preset}, {name}: the output differs by {difference:.2g}")
    seconds = run_interleaved(ways, rounds, clock)
    return {
        "network": preset,
        "scale": dense.scale,
        "size": size,
        "packed_weight_bytes": packed_weight_bytes(ghost),
        "rows": [
            {
                "name": name,
                "ratio": asdict(ratio(seconds[name], seconds[REFERENCE])),
                "difference": differences[name],
                "seconds": seconds[name],
            }
            for name in ways
        ],
    }


def report(networks: list[dict[str, Any]]) -> str:
    """Lay the measurements out as one Markdown table, a column a network."""
    rows = []
    for index, first in enumerate(networks[0]["rows"]):
        row = {"way to compute": first["name"]}
        for network in networks:
            times = network["rows"][index]["ratio"]
            size = f"x{network['scale']}, {network['size']}x{network['size']}"
            row[f"{network['network']} {size}"] = (
                f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f}), "
                f"{times['fastest']:.2f}"
            )
        rows.append(row)
    return markdown_table(rows)


def main(
    models: Annotated[str, typer.Option(help="Presets, separated by commas.")] = (
        "realesrgan_x4plus_anime_6b,realesr_animevideov3,edsr_baseline,edsr,carn,carn_m,rdn"
    ),
    size: Annotated[
        int, typer.Option(help="Height and width of the small picture; 0: the network's usual one.")
    ] = 0,
    rounds: Rounds = 7,
    threads: Threads = 2,
    clock: ClockOption = Clock.WALL,
    dtype: Annotated[Dtype, typer.Option(help="What networks are computed in.")] = Dtype.FLOAT32,
    json: JsonOutput = None,
    markdown: MarkdownOutput = None,
    section: Annotated[str, typer.Option(help="Which section.")] = "networks",
) -> None:
    """Measure, print a table, and write what is asked for."""
    torch.set_num_threads(threads)
    numbers: torch.dtype = getattr(torch, dtype.value)
    surroundings = conditions(rounds, threads, clock, numbers)
    networks = []
    for preset in models.split(","):
        networks.append(measure(preset, size or usual_size(preset), rounds, clock, numbers))
        print(report(networks[-1:]), flush=True)
    text = (
        f"{report(networks)}\nTime beside the dense network in torch, channels last: median "
        f"(quartiles), fastest. {conditions_text(surroundings)}\n"
    )
    publish(text, section, markdown, json, {"conditions": surroundings, "networks": networks})


if __name__ == "__main__":
    typer.run(main)
