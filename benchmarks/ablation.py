"""Train GhostSR networks that differ in one thing each, for equal times, and print one table.

The base is a fine-tuning of converted published weights. Each arm changes some settings; several
seeds show what chance alone makes of it:

    python benchmarks/ablation.py --data ../shared/data

An arm takes as many steps as fit into the same processor time, by the time that some of its steps
took, or of those of the arm that does the same work: those around the middle of a short run, before
and after shifts are frozen, and after the first 64, in which ``eigenbasis`` looks at the inputs of
layers far more often than later. Results are kept in ``--runs`` and are not made again when the
script is started again, so that several processes can share the work: ``--arm`` takes some of the
arms, ``--seed`` some of the seeds, and ``--measure-steps`` only times the steps, which should be
done for all arms in the same way before. Each start with ``--measure-steps`` times them again and
the shortest time counts, since other work on a machine only makes steps longer.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import ghost_layers
from ghostsr_ext.training import Config, config_from_values, train
from ghostsr_ext.training.observers import TrainingProgress
from ghostsr_ext.training.run_folder import RunFolder
from ghostsr_ext.training.validation import Measurement
from measuring import markdown_table, publish

DEFAULT_DATA = Path(os.environ.get("GHOSTSR_DATA", "../shared/data"))
SHORT_RUN = 200
TIMED_FROM, TIMED_TO = 64, 136
LEARNING_RATE = 2e-3
CONFIDENCE = 2.0
FREEZE_AT = 0.5
# How far a logit can move before shifts are frozen; random ones start within 1/3 of zero.
REACH, REACH_FROM_RANDOM = 1.25 * CONFIDENCE / 2, 3.0


@dataclass(frozen=True)
class Arm:
    """One row of a table.

    Attributes:
        name: Of its run folders.
        label: What differs from the first arm.
        settings: Overrides, as of ``ghostsr train --set``.
        reach: How far a logit can move before shifts are frozen.
        begins_as: The arm that ends with the shifts that this one begins with, given the same
            seed; None where it begins with those of its conversion.
        work: The arm that does the same work in a step; None for this one itself.
    """

    name: str
    label: str
    settings: tuple[str, ...] = ()
    reach: float = REACH
    begins_as: str | None = None
    work: str | None = None


LEARNED = "shifts.mode=learned"
RESELECTED = "shifts.reselect_every=25"
KMEANS = ("conversion.method=kmeans", "conversion.affine=false")
STRAIGHT_THROUGH = (LEARNED, "shifts.estimator=straight-through")
RANDOM = (*KMEANS, LEARNED, "shifts.init=random")

ARMS = (
    Arm("base", "base: calibrated with gains, shifts fixed, distilled, eigenbasis"),
    Arm("adam", "Adam, at 5e-4", ("training.optimizer=adam", "training.lr=5e-4")),
    Arm("muon", "Muon, at 5e-4", ("training.optimizer=muon", "training.lr=5e-4")),
    Arm("no_gains", "no gains and biases of ghosts", ("conversion.affine=false",)),
    Arm("target", "no distillation", ("distillation.output=0", "distillation.target=1"),
        work="base"),
    Arm("output", "no originals", ("distillation.output=1", "distillation.target=0"),
        work="base"),
    Arm("features", "features distilled too", ("distillation.features=0.01",)),
    Arm("last", "weights not averaged", ("training.ema_decay=1e-9",), work="base"),
    Arm("explored_2", "shifts learned, 2 % explored", (LEARNED, "shifts.exploration_rate=0.02"),
        work="explored_10"),
    Arm("explored_10", "shifts learned, 10 % explored", (LEARNED,)),
    Arm("straight", "shifts learned, straight-through, no noise", (
        *STRAIGHT_THROUGH, "shifts.noise_until=0",
    )),
    Arm("noise", "shifts learned, straight-through, noise on every ghost", (
        *STRAIGHT_THROUGH, "shifts.exploration_rate=1",
    ), work="straight"),
    Arm("reselected", "sources and shifts chosen again", (RESELECTED,)),
    Arm("layer", "one shift a layer", ("shifts.scope=layer",), work="base"),
    Arm("layer_learned", "one shift a layer, learned, 10 % explored", (
        LEARNED, "shifts.scope=layer",
    ), work="explored_10"),
    Arm("kmeans", "k-means, shifts fixed at none", KMEANS, work="no_gains"),
    Arm("kmeans_learned", "k-means, shifts learned from none, 10 % explored", (*KMEANS, LEARNED),
        work="random_learned"),
    Arm("kmeans_reselected", "k-means, sources and shifts chosen again", (*KMEANS, RESELECTED)),
    Arm("random", "k-means, shifts fixed at random", (*RANDOM, "shifts.freeze_at=0"),
        work="no_gains"),
    Arm("random_learned", "k-means, shifts learned from random, 10 % explored", RANDOM,
        REACH_FROM_RANDOM, "random"),
    Arm("scratch", "converted layers from scratch", (
        "conversion.method=scratch", "conversion.affine=false", "distillation.teacher={weights}",
    ), work="no_gains"),
    Arm("depthwise", "depthwise ghosts, equal multiply-adds", (
        "conversion.ghost_op=depthwise", "conversion.affine=false",
    )),
    Arm("prune", "pruned, equal multiply-adds", (
        "conversion.method=prune", "conversion.affine=false",
    )),
)  # fmt: skip


def logit_rate(steps: int, reach: float) -> float:
    """Return the learning rate of the logits over that of the weights.

    Adam moves a logit by about its rate a step. With this one, a shift can pass the first choice
    only if both logits move the same way nearly all the time until shifts are frozen.

    Args:
        steps: Of the run.
        reach: How far a logit can move until shifts are frozen.
    """
    # The cosine schedule averages 0.82 over the first half.
    return reach / (0.82 * LEARNING_RATE * FREEZE_AT * steps)


def config_of(arm: Arm, weights: Path, data: Path, steps: int, threads: int, seed: int) -> Config:
    """Return the configuration of a run of an arm."""
    settings: dict[str, Any] = {
        "model": {"init": str(weights)},
        "conversion": {"method": "calibrated", "ghost_ratio": 0.5, "affine": True},
        "shifts": {
            "mode": "fixed",
            "estimator": "reinmax",
            "exploration_rate": 0.1,
            "confidence": CONFIDENCE,
            "lr_factor": logit_rate(steps, arm.reach),
            "freeze_at": FREEZE_AT,
        },
        "data": {
            "train": [str(data / "T91"), str(data / "BSD200")],
            "patch": 24,
            "sampling": "area",
        },
        "distillation": {"teacher": "parent", "output": 0.5, "target": 0.5},
        "training": {
            "steps": steps,
            "batch_size": 16,
            "optimizer": "eigenbasis",
            "lr": LEARNING_RATE,
            "ema_decay": 0.98,
            "threads": threads,
            "seed": seed,
            "device": "cpu",
        },
        "logging": {"every": 10},
        "schedule": {"warmup": 20, "final": 0.01},
        "checkpoints": {"every": 10**9},
    }
    overrides = [setting.format(weights=weights) for setting in arm.settings]
    return config_from_values(settings, arm.label, overrides)


class TimedEnoughError(Exception):
    """Ends a short run."""


class StepTimer:
    """Notes the processor time of the process after each step, until it has enough of them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def decoded(self, done: int, total: int) -> None:
        """Take no notice."""

    def converting(self, done: int, total: int, what: str) -> None:
        """Take no notice."""

    def noted(self, line: str) -> None:
        """Take no notice."""

    def started(self, step: int, steps: int) -> None:
        """Take no notice."""

    def stepped(self, step: int) -> None:
        """Note the time."""
        self.seconds.append(time.process_time())
        if step == TIMED_TO:
            raise TimedEnoughError

    def progressed(self, progress: TrainingProgress, model: SRModel) -> None:
        """Take no notice."""

    def measured(
        self, step: int, measurements: Sequence[Measurement], best: bool, model: SRModel
    ) -> None:
        """Take no notice."""

    def finished(self) -> None:
        """Take no notice."""


def step_seconds(
    arm: Arm, weights: Path, data: Path, threads: int, runs: Path, *, again: bool
) -> float:
    """Return the processor time of a step of an arm, in seconds: the shortest that was measured.

    Args:
        arm: Whose steps.
        weights: The dense network.
        data: Folder of picture sets.
        threads: CPU threads.
        runs: Where what was measured is kept.
        again: Whether to measure where it was measured before.
    """
    (runs / arm.name).mkdir(parents=True, exist_ok=True)
    found = runs / arm.name / "step.json"
    known = [float(json.loads(found.read_text()))] if found.exists() else []
    if again or not known:
        timer = StepTimer()
        folder = runs / arm.name / f"timed_{os.getpid()}"
        config = config_of(arm, weights, data, SHORT_RUN, threads, seed=0)
        with suppress(TimedEnoughError):
            train(config, folder, observers=[lambda run, config: timer])
        shutil.rmtree(folder)
        seconds = timer.seconds[TIMED_TO - 1] - timer.seconds[TIMED_FROM - 1]
        known.append(seconds / (TIMED_TO - TIMED_FROM))
        found.write_text(json.dumps(min(known)))
    return min(known)


def moved_ghosts(before: SRModel, after: SRModel) -> float:
    """Return the part of all ghosts whose source or shift is another one after training."""
    starts, ends = ghost_layers(before), ghost_layers(after)
    moved = total = 0
    for name, layer in ends.items():
        start = starts[name]
        changed = (layer.shift != start.shift).any(dim=1) | (layer.source != start.source)
        moved += int(changed.sum())
        total += layer.ghost_channels
    return moved / total if total else 0.0


def trained(arm: Arm, config: Config, run: RunFolder, before: Path, moves: bool) -> dict[str, Any]:
    """Train one run and measure it, or read what an earlier start of this script has found."""
    found = run.path / "result.json"
    if found.exists():
        return json.loads(found.read_text())  # type: ignore[no-any-return]
    train(config, run.path, resume=run.config.exists())
    pictures = open_picture_set(config.data.train[0].parent / "Set5")
    initial, final = load_model(run.initial), load_model(run.final)
    log = [json.loads(line) for line in run.log.read_text().splitlines()]
    entropies = [entry["shift_entropy"] for entry in log if entry.get("shift_entropy") is not None]
    result = {
        "start": evaluate(initial, pictures, final.scale).psnr,
        "end": evaluate(final, pictures, final.scale).psnr,
        "steps": config.training.steps,
        "entropy": [entropies[0], entropies[-1]] if entropies else None,
        "moved": moved_ghosts(load_model(before), final) if moves and before.exists() else None,
        "torch": torch.__version__,
    }
    found.write_text(json.dumps(result))
    return result


def row(label: str, results: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, str]:
    """Lay one arm out: its mean over seeds, what each seed gave, and how far from the first arm."""
    ends = [result["end"] for result in results]
    apart = [end - other["end"] for end, other in zip(ends, first, strict=False)]
    entropies = [result["entropy"] for result in results]
    moved = [result["moved"] for result in results]
    return {
        "arm": label,
        "steps": f"{statistics.mean(result['steps'] for result in results):.0f}",
        "before": f"{statistics.mean(result['start'] for result in results):.2f}",
        "after": f"{statistics.mean(ends):.3f}",
        "of each seed": ", ".join(f"{end:.3f}" for end in ends),
        "to the first arm": "" if results is first else f"{statistics.mean(apart):+.3f}",
        "entropy": "{:.3f} to {:.3f}".format(
            *(statistics.mean(entropy[i] for entropy in entropies) for i in (0, 1))
        )
        if None not in entropies
        else "",
        "ghosts moved": "" if None in moved else f"{statistics.mean(moved):.1%}",
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder with T91, BSD200, Set5.")] = DEFAULT_DATA,
    weights: Annotated[
        Path | None, typer.Option(help="The dense network; EDSR mobile of 32 where left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Processor time of the steps of a run.")] = 60,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; 0, 1 and 2 by default.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")] = 1,
    runs: Annotated[Path, typer.Option(help="Where results are kept.")] = Path("runs/ablation"),
    arm: Annotated[list[str] | None, typer.Option(help="Names of arms; all by default.")] = None,
    measure_steps: Annotated[bool, typer.Option(help="Only time the steps of the arms.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Page with a section for the table to write it into.")
    ] = None,
) -> None:
    """Train the arms and print the table."""
    weights = data / "weights" / "edsr_mobile_f32b5_x2.pth" if weights is None else weights
    first: list[dict[str, Any]] = []
    rows = []
    builds: set[str] = set()
    named = {candidate.name: candidate for candidate in ARMS}
    for candidate in ARMS:
        if candidate.name not in (arm or [candidate.name]):
            continue
        if measure_steps and candidate.work is not None:
            continue
        measured = named[candidate.work or candidate.name]
        taken = step_seconds(measured, weights, data, threads, runs, again=measure_steps)
        steps = round(seconds / taken)
        if measure_steps:
            print(f"{candidate.name}: {taken * 1e3:.0f} ms a step, {steps} steps", flush=True)
            continue
        results = []
        for number in seed or [0, 1, 2]:
            run = RunFolder(runs / candidate.name / str(number))
            before = run.initial
            if candidate.begins_as is not None:
                before = RunFolder(runs / candidate.begins_as / str(number)).final
            config = config_of(candidate, weights, data, steps, threads, number)
            moves = LEARNED in candidate.settings or RESELECTED in candidate.settings
            results.append(trained(candidate, config, run, before, moves))
        first = first or results
        builds.update(result["torch"] for result in results)
        rows.append(row(candidate.label, results, first))
        print(rows[-1], flush=True)
    if not rows:
        return
    dense_model = load_model(weights)
    dense = evaluate(dense_model, open_picture_set(data / "Set5"), dense_model.scale).psnr
    text = (
        f"{markdown_table(rows)}\n{weights.name}, dense {dense:.3f} dB; as many steps as fit into "
        f"{seconds:g} s of processor time, torch {' and '.join(sorted(builds))}."
    )
    publish(text, "ablation", output)


if __name__ == "__main__":
    typer.run(main)
