"""Convert published networks by every method, without training, and print one table.

    python benchmarks/conversion_table.py --data ../shared/data --output docs/conversion.md

Rows are kept in ``--rows`` and are not measured again when the script is started again. ``--arm``
takes some rows of each network only, ``--network`` some networks.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import InputError
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.models import SRModel
from ghostsr_ext.profiling import cost
from measuring import conditions, markdown_table, write_json, write_section

DEFAULT_DATA = Path(os.environ.get("GHOSTSR_DATA", "../shared/data"))

NETWORKS = {
    "edsr_r8f64_x2.pth": "EDSR, 8 blocks of 64",
    "edsr_mobile_f64b5_x2.pth": "EDSR mobile, 5 blocks of 64",
    "edsr_mobile_f32b5_x2.pth": "EDSR mobile, 5 blocks of 32",
    "carn_x2.pth": "CARN",
    "carn_m_x234.pth": "CARN-M",
    "vdsr_twtygqyy.pth": "VDSR",
    "vdsr_caffe_huangzehao.pth": "VDSR (caffe)",
    "rdn_c3d10g64_x2_idealo.pth": "RDN, 10 blocks of 3",
}


@dataclass(frozen=True)
class Arm:
    """One way to convert.

    Attributes:
        label: What the table calls it.
        arguments: Of ``convert``.
        pictures: Whether it calibrates on pictures.
        only: The file that it is for; None for all.
    """

    label: str
    arguments: dict[str, Any] = field(default_factory=dict)
    pictures: bool = False
    only: str | None = None


FIRST = "edsr_r8f64_x2.pth"
ARMS = (
    Arm("k-means (the paper's)", {"method": "kmeans"}),
    Arm("shifted filters", {"method": "filters"}),
    Arm("shifted filters, gain and bias", {"method": "filters", "affine": True}),
    Arm("calibrated layer by layer", {"polish_minutes": 0}, pictures=True, only=FIRST),
    Arm("calibrated", {}, pictures=True),
    Arm("calibrated, gain and bias", {"affine": True}, pictures=True),
    Arm("pruned, equal MACs", {"method": "prune"}, pictures=True),
    Arm("depthwise ghosts, equal MACs", {"ghost_op": "depthwise"}, pictures=True),
    Arm("k-means, ratio 0.25", {"method": "kmeans", "ghost_ratio": 0.25}, only=FIRST),
    Arm("calibrated, ratio 0.25", {"ghost_ratio": 0.25}, pictures=True, only=FIRST),
    Arm(
        "pruned, equal MACs, ratio 0.25",
        {"method": "prune", "ghost_ratio": 0.25},
        pictures=True,
        only=FIRST,
    ),
    Arm(
        "depthwise ghosts, equal MACs, ratio 0.25",
        {"ghost_op": "depthwise", "ghost_ratio": 0.25},
        pictures=True,
        only=FIRST,
    ),
    Arm("calibrated, 5 minutes' polish", {"polish_minutes": 5.0}, pictures=True, only=FIRST),
)


def measured(model: SRModel, data: Path) -> dict[str, dict[str, float]]:
    """Set5 and the cost of a network at each of its scales."""
    pictures = open_picture_set(data / "Set5")
    rows = {}
    for scale in model.scales:
        total = cost(model, scale=scale)
        rows[str(scale)] = {
            "psnr": evaluate(model, pictures, scale).psnr,
            "parameters": total.parameters,
            "macs": total.macs,
        }
    return rows


def run(dense: SRModel, arm: Arm, data: Path) -> dict[str, Any]:
    """Convert and measure."""
    calibration = data / "BSD200" if arm.pictures else None
    wall, processor = time.perf_counter(), time.process_time()
    try:
        ghost, _ = convert(dense, calibration=calibration, **arm.arguments)
    except InputError as error:
        return {"refused": str(error)}
    return {
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "scales": measured(ghost, data),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Lay the rows out as Markdown."""
    lines = []
    for file, network in NETWORKS.items():
        if file not in rows:
            continue
        dense = rows[file]["dense"]["scales"]
        for scale in dense:
            for label in ("dense", *(arm.label for arm in ARMS)):
                row = rows[file].get(label)
                if row is None or "refused" in row:
                    continue
                here = row["scales"][scale]
                lines.append(
                    {
                        "network": network,
                        "scale": f"x{scale}",
                        "conversion": label,
                        "Set5 dB": f"{here['psnr']:.2f}",
                        "to dense": ""
                        if label == "dense"
                        else f"{here['psnr'] - dense[scale]['psnr']:+.2f}",
                        "parameters (K)": f"{here['parameters'] / 1e3:,.0f}",
                        "MACs (G)": f"{here['macs'] / 1e9:.1f}",
                        "processor s": "" if label == "dense" else f"{row['processor']:.0f}",
                    }
                )
    return markdown_table(lines)


def unmeasured(rows: dict[str, dict[str, Any]]) -> str:
    """Name the rows that are not in the table, and why."""
    lines = []
    for file, network in NETWORKS.items():
        found = rows.get(file, {})
        missing = [arm.label for arm in ARMS if arm.only in (None, file) and arm.label not in found]
        if missing:
            labels = "; ".join(missing) if found else "all rows"
            lines.append(f"- {network}, not measured: {labels}.")
        lines.extend(
            f"- {network}, {label}: refused, {row['refused']}."
            for label, row in found.items()
            if "refused" in row
        )
    return "\n".join(lines) or "All rows were measured."


def conditions_line(threads: int) -> str:
    """Say what the processor seconds hold for."""
    values = conditions(1, threads)
    return (
        f"Float32, torch {values['torch']}, {threads} of {values['cores']} cores "
        f"({values['processor']}). Processor seconds are the conversion's, of all threads "
        "together; threads that wait for one another on a busy machine count."
    )


def main(
    data: Annotated[
        Path, typer.Option(help="Folder with weights, Set5 and BSD200.")
    ] = DEFAULT_DATA,
    rows: Annotated[Path, typer.Option(help="Where rows are kept.")] = Path(
        "build/conversion_rows.json"
    ),
    output: Annotated[Path | None, typer.Option(help="Page to write the table into.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="Files; all by default.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Labels; all by default.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    torch.set_num_threads(threads)
    kept: dict[str, dict[str, Any]] = json.loads(rows.read_text()) if rows.exists() else {}
    rows.parent.mkdir(parents=True, exist_ok=True)
    for file in network or NETWORKS:
        dense = load_model(data / "weights" / file)
        found = kept.setdefault(file, {})
        found.setdefault("dense", {"scales": measured(dense, data)})
        write_json(rows, kept)
        for candidate in ARMS:
            label = candidate.label
            if (
                label in found
                or candidate.only not in (None, file)
                or label not in (arm or [label])
            ):
                continue
            found[label] = run(dense, candidate, data)
            print(file, label, found[label], flush=True)
            write_json(rows, kept)
    text = f"{table(kept)}\n{conditions_line(threads)}\n\n{unmeasured(kept)}"
    print(text)
    if output is not None:
        write_section(output, "conversions", text)


if __name__ == "__main__":
    typer.run(main)
