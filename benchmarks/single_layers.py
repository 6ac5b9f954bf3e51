r"""Measure single layers on a CPU: which path wins, and what small calls and compilers cost.

    python benchmarks/single_layers.py --what "paths,activations,small calls" --rounds 9 \
        --markdown docs/speed.md
    python benchmarks/single_layers.py --what compiled --section compiled --markdown docs/speed.md

"Packed" are calls that find the weight in the layer's cache, "new" are those without a cache, which
pack it each time, as in training. The thresholds of ``should_use_fused`` in
cpp/core/fused/convolution.cpp are read off the first table.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext import ops
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
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
from torch import Tensor, nn

# Long enough that reading the clock does not count.
LEAST_SECONDS = 2e-3

_numbers = itertools.count()

Way = Callable[[], object]


def _layer(layer: nn.Module) -> nn.Module:
    layer.eval().requires_grad_(False)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return layer


def _map(channels: int, size: int) -> Tensor:
    values = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(1))
    return values.to(memory_format=torch.channels_last)


def _repeated(way: Way, count: int) -> Way:
    def run() -> None:
        for _ in range(count):
            way()

    return run


def _compare(ways: dict[str, Way], rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Return the times of ways beside the first, each of them for one call."""
    first = next(iter(ways.values()))
    first()
    begin = clock.now()
    first()
    count = max(1, round(LEAST_SECONDS / max(clock.now() - begin, 1e-9)))
    seconds = run_interleaved(
        {name: _repeated(way, count) for name, way in ways.items()}, rounds, clock
    )
    reference = seconds[next(iter(ways))]
    return [
        {
            "name": name,
            "ratio": asdict(ratio(seconds[name], reference)),
            "microseconds": 1e6 * min(seconds[name]) / count,
        }
        for name in ways
    ]


def paths(rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Compare our own kernels with torch's convolution on small maps."""
    shapes = [
        (channels, channels, kernel, size)
        for kernel, sizes in ((3, (4, 8, 12, 16, 20, 24, 32)), (1, (4, 8, 12, 16, 32)))
        for channels in (16, 64, 256)
        for size in sizes
    ]
    rows = []
    for channels, outputs, kernel, size in shapes:
        layer = _layer(FusedConv2d(channels, outputs, kernel, padding=kernel // 2))
        assert isinstance(layer, FusedConv2d)
        input = _map(channels, size)
        path: ops.ConvolutionPath = "winograd" if kernel == 3 else "pointwise"
        source, shift = torch.empty(0, dtype=torch.int64), torch.empty(0, 2, dtype=torch.int64)

        def call(
            path: ops.ConvolutionPath,
            cache: Tensor | None,
            layer: FusedConv2d = layer,
            input: Tensor = input,
            tables: tuple[Tensor, Tensor] = (source, shift),
        ) -> Way:
            def run() -> None:
                padding = layer.kernel_size[0] // 2
                ops.ghost_conv(
                    input, layer.weight, layer.bias, *tables, padding=padding, cache=cache
                )

            def within() -> None:
                with ops.convolution_path(path):
                    run()

            return within

        ways = {
            "torch": call("aten", None),
            "packed": call(path, layer.cache.handle),
            "new": call(path, None),
            "packed, chosen": call("auto", layer.cache.handle),
            "new, chosen": call("auto", None),
        }
        with torch.inference_mode():
            rows.append(
                {
                    "layer": f"{channels} to {outputs}, {kernel}x{kernel}, {size}x{size}",
                    "ways": _compare(ways, rounds, clock),
                }
            )
    return rows


def activations(rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Compare the activations with ReLU."""
    rows = []
    for size in (48, 128):
        for kind, make in (("dense", FusedConv2d), ("ghost", GhostConv2d)):
            arguments: dict[str, dict[str, Any]] = {
                "relu": {"activation": "relu"},
                "none": {},
                "leaky_relu": {"activation": "leaky_relu", "negative_slope": 0.2},
                "prelu": {"activation": "prelu", "prelu_parameters": 64},
            }
            layers = {
                name: _layer(make(64, 64, 3, padding=1, **values))
                for name, values in arguments.items()
            }
            input = _map(64, size) - 0.5
            ways: dict[str, Way] = {
                name: (lambda layer=layer, input=input: layer(input))  # type: ignore[misc]
                for name, layer in layers.items()
            }
            with torch.inference_mode():
                rows.append(
                    {
                        "layer": f"{kind}, 64 channels, {size}x{size}",
                        "ways": _compare(ways, rounds, clock),
                    }
                )
    return rows


def small_calls(rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Compare calls that compute next to nothing."""
    layers = {
        "nn.Conv2d": _layer(nn.Conv2d(8, 8, 3, padding=1)),
        "FusedConv2d": _layer(FusedConv2d(8, 8, 3, padding=1)),
        "GhostConv2d": _layer(GhostConv2d(8, 8, 3, padding=1).freeze_shifts()),
    }
    input = _map(8, 4)
    rows = []
    for name, mode in (("inference_mode", torch.inference_mode), ("no_grad", torch.no_grad)):
        ways: dict[str, Way] = {
            key: (lambda layer=layer: layer(input))  # type: ignore[misc]
            for key, layer in layers.items()
        }
        with mode():
            rows.append(
                {"layer": f"8 channels, 4x4, {name}", "ways": _compare(ways, rounds, clock)}
            )
    return rows


def _compiled(network: nn.Module, options: dict[str, Any] | None = None) -> Way:
    def run(input: Tensor) -> object:
        return network(input)

    # Torch keeps what it compiles by the code: without guards, others would get it.
    run.__code__ = run.__code__.replace(co_name=f"run_{next(_numbers)}")
    return torch.compile(run, options=options)


def compiled(rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Compare inductor with the eager layers that it was given."""
    rows = []
    for channels, size in ((64, 24), (256, 24), (64, 96)):
        network = _layer(
            nn.Sequential(
                *(
                    GhostConv2d(channels, channels, 3, padding=1, activation="relu").freeze_shifts()
                    for _ in range(4)
                )
            )
        )
        input = _map(channels, size)
        skip_guards = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        networks: dict[str, Any] = {
            "eager": network,
            "inductor": _compiled(network),
            "C++ wrapper": _compiled(network, {"cpp_wrapper": True}),
            "no guards": _compiled(network, skip_guards),
            "C++ wrapper, no guards": _compiled(network, {"cpp_wrapper": True, **skip_guards}),
        }
        ways: dict[str, Way] = {
            name: functools.partial(candidate, input) for name, candidate in networks.items()
        }
        with torch.inference_mode():
            rows.append(
                {
                    "layer": f"4 ghost layers, {channels} channels, {size}x{size}",
                    "ways": _compare(ways, rounds, clock),
                }
            )
    return rows


MEASUREMENTS = {
    "paths": paths,
    "activations": activations,
    "small calls": small_calls,
    "compiled": compiled,
}


def report(measured: dict[str, list[dict[str, Any]]]) -> str:
    """Lay the measurements out as Markdown tables."""
    parts = []
    for name, rows in measured.items():
        lines = []
        for row in rows:
            cells = {name: row["layer"]}
            for index, way in enumerate(row["ways"]):
                times = way["ratio"]
                cells[way["name"]] = (
                    f"{way['microseconds']:.0f} us"
                    if index == 0
                    else f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
                )
            lines.append(cells)
        parts.append(markdown_table(lines))
    return "\n".join(parts)


def main(
    what: Annotated[str, typer.Option(help="Tables, separated by commas.")] = ",".join(
        MEASUREMENTS
    ),
    rounds: Rounds = 15,
    threads: Threads = 1,
    clock: ClockOption = Clock.PROCESSOR,
    json: JsonOutput = None,
    markdown: MarkdownOutput = None,
    section: Annotated[str, typer.Option(help="Which section.")] = "single_layers",
) -> None:
    """Measure, print the tables, and write what is asked for."""
    torch.set_num_threads(threads)
    surroundings = conditions(rounds, threads, clock)
    measured = {name: MEASUREMENTS[name](rounds, clock) for name in what.split(",")}
    text = (
        f"{report(measured)}\nThe first column's fastest call in microseconds, then times beside "
        f"it: median (quartiles). {conditions_text(surroundings)}\n"
    )
    publish(text, section, markdown, json, {"conditions": surroundings, "tables": measured})


if __name__ == "__main__":
    typer.run(main)
