"""Count the channels of residual blocks whose rectifiers let next to nothing through.

python benchmarks/dead_channels.py runs/x2_parent/final.safetensors --data ../shared/data/open
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.training.data import BatchPlan, PatchBatches, open_cached
from ghostsr_ext.training.value_range import to_unit_range
from torch import Tensor

_ALIVE = 1e-3


def alive(model_file: Path, batches: PatchBatches) -> dict[str, Tensor]:
    """Return the part of its values that each channel of each rectified layer lets through."""
    model = load_model(model_file).eval()
    to_unit_range(model)
    parts: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, FusedConv2d | GhostConv2d) and layer.activation == "relu":
            layer.register_forward_hook(
                lambda _layer, _inputs, output, name=name: parts.update(
                    {name: (output > 0).float().mean((0, 2, 3))}
                )
            )
    with torch.no_grad():
        model(batches[0].inputs)
    return parts


def main(
    models: Annotated[list[Path], typer.Argument(help="Networks of one scale.")],
    data: Annotated[Path, typer.Option(help="Folder of pictures.")],
    patches: Annotated[int, typer.Option(help="How many to look at, at half size.")] = 64,
) -> None:
    """Print the dead channels of each layer and of all."""
    for path in models:
        store = open_cached([data], load_model(path).scale, 24, sizes=[0.5])
        plan = BatchPlan(seed=5, batch_size=patches, patch=24, sampling="area")
        parts = alive(path, PatchBatches([store], plan))
        dead = {name: int((part < _ALIVE).sum()) for name, part in parts.items()}
        total = sum(len(part) for part in parts.values())
        layers = ", ".join(f"{name} {count}" for name, count in dead.items() if count)
        print(f"{path}: {sum(dead.values())} of {total} dead ({layers or 'none'})")


if __name__ == "__main__":
    typer.run(main)
