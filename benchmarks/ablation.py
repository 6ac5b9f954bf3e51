"""Train GhostSR networks that differ in one thing each, for equal steps, and print one table.

The base is a fine-tuning of converted published weights. Each arm changes some settings; all see
the same patches. ``--arm`` takes some of them, so that several processes can share the work:

    python benchmarks/ablation.py --data ../shared/data --steps 500

Runs are kept in ``--runs`` and are not repeated when the script is started again.
"""

from __future__ import annotations

import json
import os
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
from ghostsr_ext.profiling import cost
from ghostsr_ext.training import config_from_values, train
from ghostsr_ext.training.run_folder import RunFolder
from measuring import markdown_table, publish

DEFAULT_DATA = Path(os.environ.get("GHOSTSR_DATA", "../shared/data"))


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: Of its run folder.
        label: What differs from the base.
        settings: Overrides, as of ``ghostsr train --set``.
    """

    name: str
    label: str
    settings: tuple[str, ...] = ()


ARMS = (
    Arm("base", "base: calibrated, shifts learned per channel, distilled"),
    Arm("fixed", "shifts fixed", ("shifts.mode=fixed",)),
    Arm("layer", "one shift a layer", ("shifts.scope=layer",)),
    Arm(
        "straight_through",
        "straight-through gradient, no noise",
        ("shifts.estimator=straight-through", "shifts.noise_until=0"),
    ),
    Arm(
        "noise",
        "straight-through gradient, noise on every ghost",
        ("shifts.estimator=straight-through", "shifts.exploration_rate=1"),
    ),
    Arm("kmeans", "k-means start", ("conversion.method=kmeans",)),
    Arm(
        "kmeans_fixed",
        "k-means start, shifts fixed (at none)",
        ("conversion.method=kmeans", "shifts.mode=fixed"),
    ),
    Arm("affine", "gain and bias for each ghost", ("conversion.affine=true",)),
    Arm("target", "no distillation", ("distillation.output=0", "distillation.target=1")),
    Arm("features", "features distilled too", ("distillation.features=0.01",)),
    Arm("last", "weights not averaged", ("training.ema_decay=1e-9",)),
    Arm(
        "scratch",
        "converted layers from scratch",
        ("conversion.method=scratch", "distillation.teacher={weights}"),
    ),
    Arm("depthwise", "depthwise ghosts, equal multiply-adds", ("conversion.ghost_op=depthwise",)),
    Arm("prune", "pruned, equal multiply-adds", ("conversion.method=prune",)),
)

LEARNING_RATE = 2e-4
CONFIDENCE = 2.0
FREEZE_AT = 0.5


def logit_rate(steps: int, distance: float = 1.25 * CONFIDENCE / 2) -> float:
    """Return the learning rate of the logits over that of the weights.

    Adam moves a logit by about its rate a step. With this one, a shift can pass the first choice
    only if both logits move the same way nearly all the time until shifts are frozen.

    Args:
        steps: Of the run.
        distance: How far a logit can move until shifts are frozen.
    """
    # The cosine schedule averages 0.82 over the first half.
    return distance / (0.82 * LEARNING_RATE * FREEZE_AT * steps)


def base(weights: Path, data: Path, steps: int, threads: int) -> dict[str, Any]:
    """Settings of the first arm."""
    return {
        "model": {"init": str(weights)},
        "conversion": {"method": "calibrated", "ghost_ratio": 0.5},
        "shifts": {
            "estimator": "reinmax",
            "exploration_rate": 0.1,
            "confidence": CONFIDENCE,
            "lr_factor": logit_rate(steps),
            "freeze_at": FREEZE_AT,
        },
        "data": {
            "train": [str(data / "T91"), str(data / "BSD200")],
            "patch": 32,
            "sampling": "area",
        },
        "validation": {"sets": [str(data / "Set5")], "every": steps},
        "distillation": {"teacher": "parent", "output": 0.5, "target": 0.5},
        "training": {
            "steps": steps,
            "batch_size": 16,
            "lr": LEARNING_RATE,
            "ema_decay": 0.99,
            "threads": threads,
        },
        "logging": {"every": 10},
        "schedule": {"warmup": 10},
        "checkpoints": {"every": steps},
    }


def moved_shifts(before: SRModel, after: SRModel) -> float:
    """Return the part of all ghosts whose shift is another one after training."""
    starts, ends = ghost_layers(before), ghost_layers(after)
    moved = total = 0
    for name, layer in ends.items():
        moved += int((layer.shift != starts[name].shift).any(dim=1).sum())
        total += layer.ghost_channels
    return moved / total if total else 0.0


def trained(arm: Arm, settings: dict[str, Any], runs: Path, weights: Path) -> dict[str, Any]:
    """Train an arm, or read what an earlier start of this script has trained."""
    run = RunFolder(runs / arm.name)
    config = config_from_values(
        settings, arm.label, [setting.format(weights=weights) for setting in arm.settings]
    )
    if not run.final.exists():
        train(config, run.path, resume=run.config.exists())
    pictures = open_picture_set(config.validation.sets[0])
    initial, final = load_model(run.initial), load_model(run.final)
    log = [json.loads(line) for line in run.log.read_text().splitlines()]
    entropies = [entry["shift_entropy"] for entry in log if entry.get("shift_entropy") is not None]
    total = cost(final)
    return {
        "label": arm.label,
        "start": evaluate(initial, pictures, final.scale).psnr,
        "end": evaluate(final, pictures, final.scale).psnr,
        "parameters": total.parameters,
        "macs": total.macs,
        "entropy": [entropies[0], entropies[-1]] if entropies else None,
        "moved": moved_shifts(initial, final) if entropies else None,
    }


def table(dense: float, rows: list[dict[str, Any]]) -> str:
    """Lay the arms out as Markdown."""
    lines = [
        {
            "arm": row["label"],
            "before": f"{row['start']:.2f}",
            "after": f"{row['end']:.3f}",
            "to dense": f"{row['end'] - dense:+.3f}",
            "parameters (K)": f"{row['parameters'] / 1e3:,.0f}",
            "MACs (G)": f"{row['macs'] / 1e9:.1f}",
            "entropy": "" if row["entropy"] is None else "{:.3f} to {:.3f}".format(*row["entropy"]),
            "shifts moved": "" if row["moved"] is None else f"{row['moved']:.1%}",
        }
        for row in rows
    ]
    return markdown_table(lines)


def main(
    data: Annotated[Path, typer.Option(help="Folder with T91, BSD200, Set5.")] = DEFAULT_DATA,
    weights: Annotated[
        Path | None, typer.Option(help="The dense network; EDSR of 8 blocks where left out.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Of each arm.")] = 500,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")] = 0,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs/ablation"),
    arm: Annotated[list[str] | None, typer.Option(help="Names of arms; all by default.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Page with a section ``ablation`` to write the table into.")
    ] = None,
) -> None:
    """Train the arms and print the table."""
    weights = data / "weights" / "edsr_r8f64_x2.pth" if weights is None else weights
    dense_model = load_model(weights)
    dense = evaluate(dense_model, open_picture_set(data / "Set5"), dense_model.scale).psnr
    settings = base(weights, data, steps, threads)
    rows = []
    for candidate in ARMS:
        if candidate.name in (arm or [candidate.name]):
            rows.append(trained(candidate, settings, runs, weights))
            print(rows[-1], flush=True)
    text = (
        f"{table(dense, rows)}\n{weights.name}, dense {dense:.3f} dB; {steps} steps each, "
        f"torch {torch.__version__}."
    )
    publish(text, "ablation", output)


if __name__ == "__main__":
    typer.run(main)
