"""Train with learned and with fixed shifts from several seeds, and print one table.

The network and the steps are smaller and more than those of ``ablation.py``, from which the
settings come; several seeds show what chance alone makes of an arm:

    python benchmarks/learned_shifts.py --data ../shared/data

Runs are kept in ``--runs`` and are not repeated when the script is started again. Several
processes can share the work: ``--arm`` takes some of the arms, ``--seed`` some of the seeds.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ablation import DEFAULT_DATA, Arm, base, logit_rate, moved_shifts, trained
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.training.run_folder import RunFolder
from measuring import markdown_table, publish

# How far a logit can move before shifts are frozen; random ones start within 1/3 of zero.
_REACH_FROM_RANDOM = 3.0
# With the same seed the first arm ends with the shifts that the second one starts from.
_FROZEN_START, _FROM_RANDOM = "random", "random_learned"


def arms(steps: int) -> tuple[Arm, ...]:
    """Return the arms of runs of so many steps."""
    kmeans = ("conversion.method=kmeans",)
    return (
        Arm("fixed", "calibrated, fixed", ("shifts.mode=fixed",)),
        Arm("learned", "calibrated, learned, 2 % explored", ("shifts.exploration_rate=0.02",)),
        Arm("explored", "calibrated, learned, 10 % explored"),
        Arm(
            "layer_fixed",
            "calibrated with one shift a layer, fixed",
            ("shifts.scope=layer", "shifts.mode=fixed"),
        ),
        Arm("layer", "calibrated with one shift a layer, learned, 10 %", ("shifts.scope=layer",)),
        Arm("kmeans", "k-means, fixed at none", (*kmeans, "shifts.mode=fixed")),
        Arm(
            _FROZEN_START,
            "k-means, fixed at random",
            (*kmeans, "shifts.init=random", "shifts.freeze_at=0"),
        ),
        Arm(
            _FROM_RANDOM,
            "k-means, learned from random, 10 %",
            (
                *kmeans,
                "shifts.init=random",
                f"shifts.lr_factor={logit_rate(steps, _REACH_FROM_RANDOM)}",
            ),
        ),
    )


def row(label: str, results: list[dict[str, Any]]) -> dict[str, str]:
    """Lay one arm out: its mean over seeds, and what each seed gave."""
    ends = [result["end"] for result in results]
    entropies = [result["entropy"] for result in results]
    moved = [result["moved"] for result in results]
    return {
        "start and shifts": label,
        "before": f"{statistics.mean(result['start'] for result in results):.2f}",
        "after": f"{statistics.mean(ends):.3f}",
        "of each seed": ", ".join(f"{end:.3f}" for end in ends),
        "entropy": "{:.3f} to {:.3f}".format(
            *(statistics.mean(entropy[i] for entropy in entropies) for i in (0, 1))
        )
        if None not in entropies
        else "",
        "shifts moved": "" if None in moved else f"{statistics.mean(moved):.1%}",
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder with T91, BSD200, Set5.")] = DEFAULT_DATA,
    weights: Annotated[
        Path | None, typer.Option(help="The dense network; EDSR mobile of 32 where left out.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Of each run.")] = 1000,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; 0, 1 and 2 by default.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")] = 1,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs/learned_shifts"),
    arm: Annotated[list[str] | None, typer.Option(help="Names of arms; all by default.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Page with a section ``learned shifts`` for the table.")
    ] = None,
) -> None:
    """Train the arms and print the table."""
    weights = data / "weights" / "edsr_mobile_f32b5_x2.pth" if weights is None else weights
    seeds = seed or [0, 1, 2]
    rows = []
    for candidate in arms(steps):
        if candidate.name not in (arm or [candidate.name]):
            continue
        results = []
        for number in seeds:
            settings = base(weights, data, steps, threads)
            settings["training"]["seed"] = number
            seeded = Arm(f"{candidate.name}_{number}", candidate.label, candidate.settings)
            results.append(trained(seeded, settings, runs, weights))
            start = RunFolder(runs / f"{_FROZEN_START}_{number}").final
            if candidate.name == _FROM_RANDOM:
                end = RunFolder(runs / seeded.name).final
                results[-1]["moved"] = (
                    moved_shifts(load_model(start), load_model(end)) if start.exists() else None
                )
        rows.append(row(candidate.label, results))
        print(rows[-1], flush=True)
    dense_model = load_model(weights)
    dense = evaluate(dense_model, open_picture_set(data / "Set5"), dense_model.scale).psnr
    text = (
        f"{markdown_table(rows)}\n{weights.name}, dense {dense:.3f} dB; {steps} steps each, "
        f"seeds {', '.join(str(number) for number in seeds)}, torch {torch.__version__}."
    )
    publish(text, "learned shifts", output)


if __name__ == "__main__":
    typer.run(main)
