"""Convert published networks by every method, without originals, and print two tables.

    python benchmarks/conversion_table.py --data ../shared/data --output docs/conversion.md

Rows are kept in ``--rows`` and are not measured again when the script is started again. ``--arm``
takes some rows of each network only, ``--network`` some networks; ``--kodak`` adds Kodak24 to the
rows that are measured.

Networks that were trained with a GAN have no PSNR worth the name: for them the second table has the
PSNR between what the ghost and the dense network make of Set5's inputs.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import InputError
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.imaging import picture_files, read_image
from ghostsr_ext.models import SRModel
from ghostsr_ext.profiling import cost
from measuring import conditions, markdown_table, publish, write_json

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
INVENTING = {
    "realesrgan_x4plus_anime_6b.pth": "Real-ESRGAN x4plus anime, 6 blocks",
    "realesr_animevideov3_x4.pth": "Real-ESRGAN animevideov3",
}
"""Networks that were trained with a GAN."""


@dataclass(frozen=True)
class Arm:
    """One way to convert.

    Attributes:
        label: What the table calls it.
        arguments: Of ``convert``.
        pictures: Whether it calibrates on pictures.
        only: The files that it is for; None for all.
        shared_out: Whether each layer has a ratio of its own, at the multiply-adds of ratio 0.5.
    """

    label: str
    arguments: dict[str, Any] = field(default_factory=dict)
    pictures: bool = False
    only: tuple[str, ...] | None = None
    shared_out: bool = False

    def is_for(self, file: str) -> bool:
        """Whether it is measured on a network; those of ``INVENTING`` have their own ways only."""
        return file in (NETWORKS if self.only is None else self.only)


FIRST = "edsr_r8f64_x2.pth"
EDSRS = (FIRST, "edsr_mobile_f64b5_x2.pth", "edsr_mobile_f32b5_x2.pth")
ANIME, VIDEO = INVENTING
GAINS: dict[str, Any] = {"affine": True}
ARMS = (
    Arm("k-means (the paper's)", {"method": "kmeans"}),
    Arm("shifted filters", {"method": "filters"}),
    Arm("shifted filters, gain and bias", {"method": "filters", "affine": True}, only=(FIRST,)),
    Arm("calibrated layer by layer", {"polish_steps": 0}, pictures=True, only=EDSRS),
    Arm(
        "calibrated layer by layer, gain and bias",
        {**GAINS, "polish_steps": 0},
        pictures=True,
        only=(*EDSRS, *INVENTING),
    ),
    Arm("calibrated", {}, pictures=True),
    Arm("calibrated, gain and bias", GAINS, pictures=True, only=(*NETWORKS, *INVENTING)),
    Arm(
        "calibrated, gain and bias, 200 steps",
        {**GAINS, "polish_steps": 200},
        pictures=True,
        only=(ANIME,),
    ),
    Arm(
        "calibrated, gain and bias, 800 steps",
        {**GAINS, "polish_steps": 800},
        pictures=True,
        only=(FIRST, VIDEO),
    ),
    Arm(
        "calibrated, gain and bias, 2000 steps",
        {**GAINS, "polish_steps": 2000},
        pictures=True,
        only=(FIRST,),
    ),
    Arm(
        "calibrated, gain and bias, a ratio for each layer",
        GAINS,
        pictures=True,
        only=(*EDSRS, "carn_x2.pth", *INVENTING),
        shared_out=True,
    ),
    Arm("pruned, equal MACs", {"method": "prune"}, pictures=True, only=(*NETWORKS, *INVENTING)),
    Arm("depthwise ghosts, equal MACs", {"ghost_op": "depthwise"}, pictures=True, only=EDSRS),
    Arm("k-means, ratio 0.25", {"method": "kmeans", "ghost_ratio": 0.25}, only=(FIRST,)),
    Arm("calibrated, ratio 0.25", {"ghost_ratio": 0.25}, pictures=True, only=(FIRST,)),
    Arm(
        "calibrated, gain and bias, ratio 0.25",
        {**GAINS, "ghost_ratio": 0.25},
        pictures=True,
        only=(FIRST, *INVENTING),
    ),
    Arm(
        "calibrated, gain and bias, 800 steps, ratio 0.25",
        {**GAINS, "ghost_ratio": 0.25, "polish_steps": 800},
        pictures=True,
        only=(VIDEO,),
    ),
    Arm(
        "pruned, equal MACs, ratio 0.25",
        {"method": "prune", "ghost_ratio": 0.25},
        pictures=True,
        only=(FIRST, *INVENTING),
    ),
    Arm(
        "depthwise ghosts, equal MACs, ratio 0.25",
        {"ghost_op": "depthwise", "ghost_ratio": 0.25},
        pictures=True,
        only=(FIRST,),
    ),
)


def measured(model: SRModel, dense: SRModel, data: Path, kodak: bool) -> dict[str, dict[str, Any]]:
    """The quality and the cost of a network at each of its scales."""
    rows: dict[str, dict[str, Any]] = {}
    for scale in model.scales:
        total = cost(model, scale=scale)
        rows[str(scale)] = {"parameters": total.parameters, "macs": total.macs}
        if dense.origin and Path(dense.origin["file"]).name in INVENTING:
            rows[str(scale)]["agreement"] = agreement(model, dense, data / "Set5")
            continue
        sets = {"psnr": data / "Set5", **({"kodak": data / "Kodak24"} if kodak else {})}
        for key, folder in sets.items():
            rows[str(scale)][key] = evaluate(model, open_picture_set(folder), scale).psnr
    return rows


@torch.no_grad()
def agreement(model: SRModel, dense: SRModel, folder: Path) -> float:
    """Mean PSNR in dB between what two networks make of the reduced pictures of a folder."""
    found = []
    for path in picture_files(folder / "LR_bicubic" / f"X{dense.scale}"):
        picture = torch.from_numpy(read_image(path).astype(np.float32)).permute(2, 0, 1)[None]
        outputs = (network.eval()(picture / 255).clamp(0, 1) for network in (model, dense))
        difference = functools.reduce(torch.sub, outputs).double().square().mean()
        found.append(-10 * math.log10(max(float(difference), 1e-12)))
    return sum(found) / len(found)


def run(dense: SRModel, arm: Arm, data: Path, kodak: bool) -> dict[str, Any]:
    """Convert and measure."""
    calibration = data / "BSD200" if arm.pictures else None
    arguments = dict(arm.arguments)
    if arm.shared_out:
        uniform, _ = convert(dense, method="kmeans")
        scale = dense.scales[0]
        arguments["target_macs"] = cost(uniform, scale=scale).macs / cost(dense, scale=scale).macs
    wall, processor = time.perf_counter(), time.process_time()
    try:
        ghost, report = convert(dense, calibration=calibration, **arguments)
    except InputError as error:
        return {"refused": str(error)}
    return {
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "polish": report.extra.get("polish"),
        "warnings": list(report.warnings),
        "scales": measured(ghost, dense, data, kodak),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Lay out the rows of the networks that were trained for PSNR as Markdown."""
    lines = []
    with_kodak = any(
        "kodak" in here
        for found in rows.values()
        for row in found.values()
        for here in row.get("scales", {}).values()
    )
    for file, network in NETWORKS.items():
        for scale, label, row, here in _measured_rows(rows, file):
            dense = rows[file]["dense"]["scales"][scale]
            line = {"network": network, "scale": f"x{scale}", "conversion": label}
            for key, name in {"psnr": "Set5", "kodak": "Kodak24"}.items():
                if key == "kodak" and not with_kodak:
                    continue
                there = key in here and key in dense and label != "dense"
                line[f"{name} dB"] = f"{here[key]:.2f}" if key in here else ""
                line[f"{name} to dense"] = f"{here[key] - dense[key]:+.2f}" if there else ""
            lines.append({**line, **_costs(here), "processor s": _seconds(row)})
    return markdown_table(lines)


def agreement_table(rows: dict[str, dict[str, Any]]) -> str:
    """Lay out the rows of ``INVENTING`` as Markdown."""
    lines = [
        {
            "network": network,
            "conversion": label,
            "to the dense output, dB": "" if label == "dense" else f"{here['agreement']:.2f}",
            **_costs(here),
            "processor s": _seconds(row),
        }
        for file, network in INVENTING.items()
        for _, label, row, here in _measured_rows(rows, file)
    ]
    return markdown_table(lines) if lines else ""


def _measured_rows(
    rows: dict[str, dict[str, Any]], file: str
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    found = rows.get(file, {})
    for scale in found.get("dense", {}).get("scales", {}):
        for label in ("dense", *(arm.label for arm in ARMS)):
            row = found.get(label)
            if row is not None and "refused" not in row:
                yield scale, label, row, row["scales"][scale]


def _costs(here: dict[str, Any]) -> dict[str, str]:
    return {
        "parameters (K)": f"{here['parameters'] / 1e3:,.0f}",
        "MACs (G)": f"{here['macs'] / 1e9:.1f}",
    }


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['processor']:.0f}" if "processor" in row else ""


def unmeasured(rows: dict[str, dict[str, Any]]) -> str:
    """Name the rows that are not in the tables, and why."""
    lines = []
    for file, network in {**NETWORKS, **INVENTING}.items():
        found = rows.get(file, {})
        missing = [arm.label for arm in ARMS if arm.is_for(file) and arm.label not in found]
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
    kodak: Annotated[bool, typer.Option("--kodak", help="Measure on Kodak24 too.")] = False,
) -> None:
    torch.set_num_threads(threads)
    kept: dict[str, dict[str, Any]] = json.loads(rows.read_text()) if rows.exists() else {}
    rows.parent.mkdir(parents=True, exist_ok=True)
    for file in network or {**NETWORKS, **INVENTING}:
        dense = load_model(data / "weights" / file)
        found = kept.setdefault(file, {})
        if "dense" not in found:
            found["dense"] = {"scales": measured(dense, dense, data, kodak)}
        write_json(rows, kept)
        for candidate in ARMS:
            label = candidate.label
            if label in found or not candidate.is_for(file) or label not in (arm or [label]):
                continue
            found[label] = run(dense, candidate, data, kodak)
            print(file, label, found[label], flush=True)
            write_json(rows, kept)
    text = (
        f"{table(kept)}\n{agreement_table(kept)}\n{conditions_line(threads)}\n\n{unmeasured(kept)}"
    )
    publish(text, "conversions", output)


if __name__ == "__main__":
    typer.run(main)
