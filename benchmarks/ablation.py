"""Train GhostSR networks that differ in one thing each, for equal steps, and print one table.

The base is a fine-tuning of converted published weights. Each arm changes some settings; all see
the same patches. It takes steps x arms x about 0.7 s on 2 cores:

    python benchmarks/ablation.py --data ../shared/data --steps 500 --output docs/ablation.md

Runs are kept in ``--runs`` and are not repeated when the script is started again.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import METHODS
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.files import atomic_write
from ghostsr_ext.profiling import cost
from ghostsr_ext.training import config_from_values, train
from ghostsr_ext.training.run_folder import RunFolder

DEFAULT_DATA = Path(os.environ.get("GHOSTSR_DATA", "../shared/data"))


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        label: What differs from the base.
        settings: Overrides, as of ``ghostsr train --set``.
    """

    label: str
    settings: tuple[str, ...] = ()


ARMS = (
    Arm("base: calibrated, learned shifts per channel, distilled"),
    Arm("k-means start", ("conversion.method=kmeans",)),
    Arm("fixed shifts", ("shifts.mode=fixed",)),
    Arm("k-means start, fixed shifts", ("conversion.method=kmeans", "shifts.mode=fixed")),
    Arm("one shift a layer", ("shifts.scope=layer",)),
    Arm("Gumbel noise to the end of learning", ("shifts.noise_until=1",)),
    Arm("gain and bias a ghost", ("conversion.affine=true",)),
    Arm("no distillation", ("distillation.output=0", "distillation.target=1")),
    Arm("distilled features too", ("distillation.features=0.01",)),
    Arm("no averaged weights", ("training.ema_decay=1e-9",)),
    Arm(
        "converted layers from scratch",
        ("conversion.method=scratch", "distillation.teacher={weights}"),
    ),
)


def base(weights: Path, data: Path, steps: int, threads: int) -> dict[str, Any]:
    """Settings of the first arm."""
    return {
        "model": {"init": str(weights)},
        "conversion": {"method": "calibrated", "ghost_ratio": 0.5},
        "shifts": {"noise_until": 0.0, "confidence": 1.0, "lr_factor": 10.0, "freeze_at": 0.5},
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
            "lr": 2e-4,
            "ema_decay": 0.99,
            "threads": threads,
        },
        "schedule": {"warmup": 10},
        "checkpoints": {"every": steps},
    }


def trained(
    arm: Arm, number: int, settings: dict[str, Any], runs: Path, weights: Path
) -> dict[str, Any]:
    """Train an arm, or read what an earlier start of this script has trained."""
    run = RunFolder(runs / f"arm{number:02d}")
    config = config_from_values(
        settings, arm.label, [setting.format(weights=weights) for setting in arm.settings]
    )
    started = time.perf_counter()
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
        "seconds": time.perf_counter() - started,
    }


def table(dense: float, rows: list[dict[str, Any]], steps: int) -> str:
    """Lay the arms out as Markdown."""
    lines = [
        f"| arm, {steps} steps | before | after | less than dense ({dense:.3f} dB) | entropy |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        entropy = "" if row["entropy"] is None else "{:.2f} to {:.2f}".format(*row["entropy"])
        lines.append(
            f"| {row['label']} | {row['start']:.3f} | {row['end']:.3f} | "
            f"{dense - row['end']:.3f} | {entropy} |"
        )
    return "\n".join(lines) + "\n"


def main(
    data: Annotated[Path, typer.Option(help="Folder with T91, BSD200, Set5.")] = DEFAULT_DATA,
    weights: Annotated[
        Path | None, typer.Option(help="The dense network; EDSR of 8 blocks where left out.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Of each arm.")] = 500,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")] = 0,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs/ablation"),
    output: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Train all arms and print the table."""
    weights = data / "weights" / "edsr_r8f64_x2.pth" if weights is None else weights
    dense_model = load_model(weights)
    dense = evaluate(dense_model, open_picture_set(data / "Set5"), dense_model.scale).psnr
    rows = []
    for number, arm in enumerate(ARMS):
        settings = base(weights, data, steps, threads)
        if "calibrated" not in METHODS and not any("method" in key for key in arm.settings):
            print(f"left out: {arm.label} (this release has no calibrated conversion)")
            continue
        rows.append(trained(arm, number, settings, runs, weights))
        print(rows[-1], flush=True)
    text = table(dense, rows, steps)
    print(text)
    if output is not None:
        machine = f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
        heading = (
            f"# Ablation of the training\n\nFrom {weights.name}, PSNR on Y of Set5 in dB, "
            f"{machine}. Made by `benchmarks/ablation.py --steps {steps}`.\n\n"
        )
        with atomic_write(output, overwrite=True) as temporary:
            temporary.write_text(heading + text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
