"""Say what part of a network's time single operators of torch take beside the package's layers.

Networks have random weights and run on one thread by default; times are torch's profiler's, of the
operator and what it calls. Page faults are those of one warm run, by
``getrusage``.

    python benchmarks/operator_shares.py --markdown docs/speed.md
"""

from __future__ import annotations

import functools
import resource
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from measuring import (
    MarkdownOutput,
    Rounds,
    Threads,
    conditions,
    markdown_table,
    publish,
)
from plain_networks import make_network, usual_size
from torch.profiler import ProfilerActivity, profile

OPERATORS = ("pixel_shuffle", "upsample_nearest2d", "cat", "copy_")


def shares(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return the part of the time of ``run`` that each of ``OPERATORS`` takes, and their sum."""
    for _ in range(2):
        run()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(rounds):
            run()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    times = {event.key.removeprefix("aten::"): event.cpu_time_total / total for event in events}
    return {name: times.get(name, 0.0) for name in OPERATORS}


def page_faults(run: Callable[[], object], rounds: int) -> float:
    """Return how many pages the system has to find for one warm ``run``."""
    run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / rounds


def main(
    models: Annotated[str, typer.Option(help="Presets, separated by commas.")] = (
        "edsr_baseline,realesr_animevideov3,realesrgan_x4plus_anime_6b,carn,carn_m,rdn"
    ),
    size: Annotated[
        int, typer.Option(help="Height and width of the small picture; 0: the network's usual one.")
    ] = 0,
    rounds: Rounds = 5,
    threads: Threads = 1,
    markdown: MarkdownOutput = None,
    section: Annotated[str, typer.Option(help="Which section.")] = "operator_shares",
) -> None:
    """Measure, print a table, and write what is asked for."""
    torch.set_num_threads(threads)
    surroundings = conditions(rounds, threads)
    rows = []
    for preset in models.split(","):
        side = size or usual_size(preset)
        for kind in ("dense", "ghost"):
            network = make_network(preset, ghost=kind == "ghost")
            image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
            with torch.inference_mode():
                run: Callable[[], object] = functools.partial(network, image)
                found = shares(run, rounds)
                faults = page_faults(run, rounds)
            rows.append(
                {"network": f"{preset} x{network.scale}, {kind}, {side}x{side}"}
                | {name: f"{100 * part:.1f} %" for name, part in found.items()}
                | {"page faults": f"{faults:.0f}"}
            )
            print(rows[-1], flush=True)
    text = (
        f"{markdown_table(rows)}\n{surroundings['threads']} of {surroundings['cores']} cores "
        f"({surroundings['processor']}), float32, torch {surroundings['torch']}; the sum of "
        f"{rounds} runs, load average {surroundings['load']} at the start.\n"
    )
    publish(text, section, markdown)


if __name__ == "__main__":
    typer.run(main)
