"""Train with each optimiser, new networks and converted ones, and print one table.

All arms of a start see the same patches in as many steps; the table has the processor time that
they took, since a step of one optimiser costs more than that of another:

    python benchmarks/optimizers.py --data ../shared/data --output docs/training.md

Runs are kept in ``--runs`` and are not repeated when the script is started again.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ablation import DEFAULT_DATA
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.training import config_from_values, train
from ghostsr_ext.training.run_folder import RunFolder
from measuring import markdown_table, publish

_NEVER = 10**6


@dataclass(frozen=True)
class Start:
    """What training begins with.

    Attributes:
        name: Of its run folders.
        label: What the table calls it.
        settings: Tables of the configuration.
        rates: Learning rates to try, of each optimiser.
    """

    name: str
    label: str
    settings: dict[str, Any]
    rates: dict[str, tuple[float, ...]]


def starts(data: Path) -> tuple[Start, ...]:
    """Return a network with new weights and a converted one."""
    arguments = {
        "scale": 2,
        "blocks": 8,
        "features": 32,
        "residual_scale": 1.0,
        "value_range": 1.0,
        "tail": "direct",
    }
    published = [str(data / "T91"), str(data / "BSD200")]
    return (
        Start(
            "new",
            "EDSR of 8 blocks of 32, new weights",
            {
                "model": {"preset": "edsr", "arguments": arguments},
                "data": {"train": [str(data / "open")], "sizes": [1.0, 0.5]},
            },
            {"adam": (1e-3, 2e-3), "muon": (2e-3, 4e-3), "eigenbasis": (5e-3, 1e-2)},
        ),
        Start(
            "converted",
            "EDSR mobile of 32, converted at 0.5",
            {
                "model": {"init": str(data / "weights" / "edsr_mobile_f32b5_x2.pth")},
                "conversion": {"method": "calibrated", "affine": True},
                "shifts": {"mode": "fixed"},
                "data": {"train": published},
                "distillation": {"teacher": "parent", "output": 0.5, "target": 0.5},
            },
            {"adam": (2e-4, 5e-4), "muon": (2e-4, 5e-4), "eigenbasis": (1e-3, 2e-3)},
        ),
    )


def settings_of(
    start: Start, data: Path, steps: int, threads: int, optimizer: str, rate: float, seed: int
) -> dict[str, Any]:
    """Settings of one run."""
    shared: dict[str, Any] = {
        "data": {"patch": 24, "sampling": "area"},
        "validation": {"sets": [str(data / "Set5")], "every": _NEVER},
        "training": {
            "steps": steps,
            "batch_size": 16,
            "optimizer": optimizer,
            "lr": rate,
            "ema_decay": 0.98,
            "threads": threads,
            "seed": seed,
        },
        "schedule": {"warmup": 20, "final": 0.01},
        "checkpoints": {"every": _NEVER},
    }
    return {
        name: {**shared.get(name, {}), **start.settings.get(name, {})}
        for name in {**shared, **start.settings}
    }


def trained(name: str, settings: dict[str, Any], runs: Path) -> dict[str, float]:
    """Train one run and measure it, or read what an earlier start of this script has found."""
    run = RunFolder(runs / name)
    found = run.path / "result.json"
    if found.exists():
        return json.loads(found.read_text())  # type: ignore[no-any-return]
    config = config_from_values(settings, name)
    begun = time.process_time()
    train(config, run.path, resume=run.config.exists())
    seconds = time.process_time() - begun
    pictures = open_picture_set(config.validation.sets[0])
    initial, final = load_model(run.initial), load_model(run.final)
    result = {
        "start": evaluate(initial, pictures, final.scale).psnr,
        "end": evaluate(final, pictures, final.scale).psnr,
        "seconds": seconds,
    }
    found.write_text(json.dumps(result))
    return result


def row(
    start: Start, optimizer: str, rate: float, results: list[dict[str, float]]
) -> dict[str, str]:
    """Lay one arm out: its mean over seeds, and what each seed gave."""
    ends = [result["end"] for result in results]
    return {
        "start": start.label,
        "optimiser": optimizer,
        "rate": f"{rate:g}",
        "before": f"{statistics.mean(result['start'] for result in results):.2f}",
        "after": f"{statistics.mean(ends):.3f}",
        "of each seed": ", ".join(f"{end:.3f}" for end in ends),
        "processor time (s)": f"{statistics.mean(r['seconds'] for r in results):.0f}",
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of pictures and weights.")] = DEFAULT_DATA,
    steps: Annotated[int, typer.Option(help="Of each run.")] = 300,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; 0, 1 and 2 by default.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")] = 1,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs/optimizers"),
    start: Annotated[
        list[str] | None, typer.Option(help="new, converted; both by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Page with a section ``optimisers`` for the table.")
    ] = None,
) -> None:
    """Train the arms and print the table."""
    seeds = seed or [0, 1, 2]
    rows = []
    for chosen in starts(data):
        if chosen.name not in (start or [chosen.name]):
            continue
        for optimizer, rates in chosen.rates.items():
            for rate in rates:
                results = [
                    trained(
                        f"{chosen.name}_{optimizer}_{rate:g}_{number}",
                        settings_of(chosen, data, steps, threads, optimizer, rate, number),
                        runs,
                    )
                    for number in seeds
                ]
                rows.append(row(chosen, optimizer, rate, results))
                print(rows[-1], flush=True)
    text = (
        f"{markdown_table(rows)}\nSet5, Y, dB; {steps} steps of 16 patches of 24x24, seeds "
        f"{', '.join(str(number) for number in seeds)}, torch {torch.__version__}."
    )
    publish(text, "optimisers", output)


if __name__ == "__main__":
    typer.run(main)
