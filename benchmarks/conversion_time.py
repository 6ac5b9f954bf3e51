"""Time the calibrated conversion of an EDSR: its layers, its final steps and its statistics.

    python benchmarks/conversion_time.py --features 256 --blocks 32 --layers 4

Weights and crops are random: the time does not depend on them, what is fitted does. Only the first
``--layers`` layers are converted. Statistics are also timed by one matrix product for each lag, in
turns with the native correlation, beside what the products alone take at the rate of a large one.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import Annotated

import torch
import typer
from ghostsr_ext import _native
from ghostsr_ext.conversion import convert
from ghostsr_ext.conversion.correlation import flatten, one_lag
from ghostsr_ext.conversion.replacement import replace_module
from ghostsr_ext.models import create_model
from ghostsr_ext.nn import GhostConv2d, convolution_arguments, epilogue_arguments
from measuring import (
    Clock,
    Rounds,
    Threads,
    conditions,
    conditions_text,
    markdown_table,
    run_interleaved,
)
from torch import Tensor

SIDE = 48
MAX_SHIFT = 2


def lags(*, itself: bool) -> list[tuple[int, int]]:
    """Return the lags that a 3x3 filter and shifts by one pixel need, without mirrored ones."""
    offsets = range(-MAX_SHIFT, MAX_SHIFT + 1)
    every = [(dy, dx) for dy in offsets for dx in offsets]
    return [lag for lag in every if not itself or lag >= (0, 0)]


def by_products(first: Tensor, second: Tensor) -> None:
    """Correlate by one matrix product for each lag."""
    row = first.shape[3] + MAX_SHIFT
    flat_first = flatten(first, (MAX_SHIFT, MAX_SHIFT))
    flat_second = flat_first if second is first else flatten(second, (MAX_SHIFT, MAX_SHIFT))
    for dy, dx in lags(itself=second is first):
        one_lag(flat_first, flat_second, dy * row + dx)


def statistics_table(features: int, crops: int, rounds: int) -> str:
    """Compare the two ways to the sums that one layer needs."""
    inputs = torch.randn(crops, features, SIDE + 2, SIDE + 2).relu()
    targets = torch.randn(crops, features, SIDE + 2, SIDE + 2)
    square = torch.randn(1024, 1024)

    def native(first: Tensor) -> None:
        _native.correlate_maps(
            first.numpy(), inputs.numpy(), MAX_SHIFT, MAX_SHIFT, threads=torch.get_num_threads()
        )

    seconds = run_interleaved(
        {
            "inputs, one product a lag": lambda: by_products(inputs, inputs),
            "inputs, native": lambda: native(inputs),
            "targets, one product a lag": lambda: by_products(targets, inputs),
            "targets, native": lambda: native(targets),
            "large product": lambda: square @ square,
        },
        rounds,
        Clock.PROCESSOR,
        warmup=0,
    )
    rate = 2 * 1024**3 / statistics.median(seconds.pop("large product"))
    positions = crops * (SIDE + 2) ** 2
    rows = []
    for name, runs in seconds.items():
        count = len(lags(itself=name.startswith("inputs")))
        floor = 2 * features**2 * positions * count / rate
        rows.append(
            {
                "sums": name,
                "processor s": f"{statistics.median(runs):.3f}",
                "products alone s": f"{floor:.3f}" if "product" in name else "",
            }
        )
    return markdown_table(rows)


def peak_gigabytes() -> float:
    """Return the largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def layers_table(features: int, blocks: int, layers: int, crops: int) -> str:
    """Convert some layers and report each."""
    model = create_model("edsr", features=features, blocks=blocks, scale=2).eval()
    images = torch.rand(crops, 3, SIDE, SIDE) * 255
    rows: list[dict[str, str]] = []
    last = time.process_time(), time.perf_counter()

    def progress(_done: float, _total: float, name: str) -> None:
        nonlocal last
        now = time.process_time(), time.perf_counter()
        rows.append(
            {
                "layer": name,
                "processor s": f"{now[0] - last[0]:.1f}",
                "wall s": f"{now[1] - last[1]:.1f}",
                "peak memory GB": f"{peak_gigabytes():.1f}",
            }
        )
        last = now

    convert(
        model,
        0.5,
        method="calibrated",
        calibration=images,
        layers=model.default_layers()[:layers],
        polish_minutes=0,
        progress=progress,
    )
    return markdown_table(rows)


def finish_table(features: int, blocks: int) -> str:
    """Time what the final steps are made of, once each."""
    dense = create_model("edsr", features=features, blocks=blocks, scale=2).eval()
    ghost = create_model("edsr", features=features, blocks=blocks, scale=2).eval()
    for name in ghost.default_layers():
        layer = ghost.get_submodule(name)
        arguments = {**convolution_arguments(layer), **epilogue_arguments(layer)}
        replacement = GhostConv2d(layer.in_channels, layer.out_channels, **arguments)
        replacement.freeze_shifts()
        replace_module(ghost, layer, replacement)
    images = torch.rand(4, 3, SIDE, SIDE) * 255
    moment = torch.randn(9 * features, 8192)
    moment = moment @ moment.T

    def wanted() -> None:
        with torch.no_grad():
            dense(images)

    parts = {
        "dense network on 4 crops": wanted,
        "directions of one layer": lambda: torch.linalg.eigh(moment),
        "forward and backward of 4 crops": lambda: ghost(images).square().mean().backward(),
    }
    seconds = run_interleaved(parts, 1, Clock.PROCESSOR, warmup=0)
    return markdown_table(
        [
            {"part of the final steps": name, "processor s": f"{runs[0]:.1f}"}
            for name, runs in seconds.items()
        ]
    )


def main(
    features: Annotated[int, typer.Option(min=8)] = 256,
    blocks: Annotated[int, typer.Option(min=1)] = 32,
    layers: Annotated[int, typer.Option(min=1)] = 4,
    crops: Annotated[int, typer.Option(min=2)] = 48,
    threads: Threads = 1,
    rounds: Rounds = 3,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    print(layers_table(features, blocks, layers, crops), flush=True)
    print(finish_table(features, blocks), flush=True)
    print(statistics_table(features, crops, rounds))
    print(conditions_text(conditions(rounds, threads, Clock.PROCESSOR)))


if __name__ == "__main__":
    typer.run(main)
