"""Dense against ghost in other runtimes: ONNX Runtime, OpenVINO, ncnn.

    python benchmarks/runtimes.py CHECKPOINT... [--size 160x120] [--repeats 10] [--threads 1]

Each checkpoint is converted by k-means at ratio 0.5 (speed does not depend on its weights), both
networks are exported, and their runs are interleaved. Prints one Markdown table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from ghostsr_ext.benchmark import time_interleaved
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.export import export_model
from ghostsr_ext.export.ncnn import load_ncnn
from ghostsr_ext.export.onnx import load_onnx
from ghostsr_ext.export.openvino import load_openvino
from ghostsr_ext.models import SRModel
from measuring import Threads

Run = Callable[[torch.Tensor], torch.Tensor]


def load_runtimes(model: SRModel, folder: Path) -> dict[str, tuple[Run, float]]:
    """Export to each runtime; return what runs it, and its largest difference from torch."""
    files = {suffix: folder / f"{suffix[1:]}{suffix}" for suffix in (".onnx", ".xml", ".param")}
    parity = {name: export_model(model, path) for name, path in files.items()}
    runs = {
        ".onnx": load_onnx(files[".onnx"]),
        ".xml": load_openvino(files[".xml"]),
        ".param": load_ncnn(files[".param"], files[".param"].with_suffix(".bin")),
    }
    return {parity[name].runtime: (runs[name], parity[name].largest) for name in files}


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Files that load_model reads.")],
    size: Annotated[str, typer.Option(help="Width and height of the small picture.")] = "160x120",
    repeats: Annotated[int, typer.Option(help="Runs of each network that count.")] = 10,
    threads: Threads = 1,
) -> None:
    """Print one Markdown table."""
    torch.set_num_threads(threads)
    columns, rows = map(int, size.split("x"))
    print("| network | runtime | dense | ghost | speed | largest difference (of 0..255) |")
    print("|---|---|---:|---:|---:|---:|")
    for checkpoint in checkpoints:
        dense = load_model(checkpoint)
        ghost, _ = convert(dense)
        enlarged = dense.scale if dense.input_upscaled else 1
        image = torch.rand(1, dense.channels, rows * enlarged, columns * enlarged)
        image *= dense.value_range
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "dense").mkdir()
            Path(folder, "ghost").mkdir()
            runtimes = {
                kind: load_runtimes(model, Path(folder, kind))
                for kind, model in (("dense", dense), ("ghost", ghost))
            }
            for runtime in runtimes["dense"]:
                runs = {kind: runtimes[kind][runtime][0] for kind in runtimes}
                timings = time_interleaved(
                    {kind: partial(run, image) for kind, run in runs.items()},
                    repeats,
                    2,
                    torch.device("cpu"),
                )
                dense_time, ghost_time = timings["dense"].median, timings["ghost"].median
                difference = max(runtimes[kind][runtime][1] for kind in runtimes)
                print(
                    f"| {checkpoint.stem} | {runtime} | {dense_time * 1e3:.1f} ms | "
                    f"{ghost_time * 1e3:.1f} ms | {dense_time / ghost_time:.2f}x | "
                    f"{difference:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    typer.run(main)
