"""Measure the epilogue of a ghost layer, forwards and backwards, against the memory's speed.

Every operator has a floor: the bytes of the maps that it must read and write, once each. The copy
beside it, ``torch.Tensor.copy_``, moves as many bytes, half of them read and half written; runs of
the two alternate, and each figure is the median of its runs. The result of an operator is newly
allocated on every run, as in a network; the copy writes to the same memory each time. On one thread
the clock is that thread's own, which other programs on the machine do not advance.

    python benchmarks/epilogue.py --threads 1
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from ghostsr_ext import ops
from measuring import Threads
from rich.console import Console
from rich.table import Table
from torch import Tensor

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Case:
    """An operator call and the least number of bytes that it moves."""

    label: str
    run: Callable[[], object]
    floor: int


def _cases(channels: int, ghosts: int, size: int, layout: torch.memory_format) -> list[Case]:
    def draw(count: int) -> Tensor:
        return torch.randn(1, count, size, size).to(memory_format=layout)

    intrinsic, residual, grad_output = draw(channels - ghosts), draw(channels), draw(channels)
    source = torch.randint(0, channels - ghosts, (ghosts,))
    shift = torch.randint(-1, 2, (ghosts, 2))
    order = torch.randperm(channels)
    logits = torch.randn(ghosts, 9)
    output = ops.shift_concat(intrinsic, source, shift, activation="relu")
    narrow, wide = intrinsic.nbytes, grad_output.nbytes
    return [
        Case(
            "shift_concat",
            lambda: ops.shift_concat(intrinsic, source, shift),
            narrow + wide,
        ),
        Case(
            "shift_concat, order",
            lambda: ops.shift_concat(intrinsic, source, shift, order=order),
            narrow + wide,
        ),
        Case(
            "shift_concat, order, residual, ReLU",
            lambda: ops.shift_concat(
                intrinsic, source, shift, order=order, residual=residual, activation="relu"
            ),
            narrow + 2 * wide,
        ),
        Case(
            "shift_concat_backward",
            lambda: ops.shift_concat_backward(
                grad_output, source, shift, output_mask=[True, False, False]
            ),
            narrow + wide,
        ),
        Case(
            "shift_concat_backward, ReLU",
            lambda: ops.shift_concat_backward(
                grad_output,
                source,
                shift,
                output=output,
                activation="relu",
                output_mask=[True, False, False],
            ),
            narrow + 2 * wide,
        ),
        Case(
            "shift_selection_backward, K = 9",
            lambda: ops.shift_selection_backward(grad_output, intrinsic, source, logits, None, 1.0),
            narrow + wide * ghosts // channels,
        ),
    ]


def _seconds(function: Callable[[], object]) -> float:
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    function()
    return clock() - begin


def _medians(functions: list[Callable[[], object]], runs: int) -> list[float]:
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for function, collected in zip(functions, times, strict=True):
            collected.append(_seconds(function))
    # The first runs fault the memory in.
    return [statistics.median(collected[runs // 10 :]) for collected in times]


def main(
    channels: Annotated[int, typer.Option(help="C_out.")] = 64,
    ghosts: Annotated[int, typer.Option(help="Ghost channels among them.")] = 32,
    size: Annotated[int, typer.Option(help="Height and width of the maps.")] = 256,
    threads: Threads = 2,
    runs: Annotated[int, typer.Option(help="Runs of every operator.")] = 100,
) -> None:
    """Print one table."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    table = Table(
        title=f"float32 [1, {channels}, {size}, {size}] with {ghosts} ghosts, {threads} threads"
    )
    table.add_column("operator")
    for name in ("layout", "floor MB", "ms", "GB/s", "copy GB/s", "share of copy"):
        table.add_column(name, justify="right")
    for layout, memory_format in LAYOUTS.items():
        for case in _cases(channels, ghosts, size, memory_format):
            origin = torch.randn(case.floor // 8)
            target = torch.empty_like(origin)
            seconds, copy_seconds = _medians(
                [case.run, lambda target=target, origin=origin: target.copy_(origin)], runs
            )
            speed, copy_speed = (case.floor / value / 1e9 for value in (seconds, copy_seconds))
            table.add_row(
                case.label,
                layout,
                f"{case.floor / 1e6:.1f}",
                f"{seconds * 1e3:.2f}",
                f"{speed:.1f}",
                f"{copy_speed:.1f}",
                f"{speed / copy_speed:.0%}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
