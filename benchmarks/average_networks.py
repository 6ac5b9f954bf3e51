"""Write the network whose weights are the mean of those of others of the same layers and shifts.

Networks that were trained on from one another, towards other ends, have better means than ends
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").

python benchmarks/average_networks.py runs/x4_polished.safetensors runs/x4_large/final.safetensors \
    --output x4.safetensors --dtype float16
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel


def average(models: Sequence[SRModel]) -> SRModel:
    """Return the first network with the mean of the floating-point tensors of all of them.

    Raises:
        InputError: One has other tensors, or another table of sources and shifts, than the first.
    """
    first, *others = [model.state_dict() for model in models]
    for number, other in enumerate(others, 2):
        same = first.keys() == other.keys() and all(
            tensor.shape == other[name].shape
            and (tensor.is_floating_point() or torch.equal(tensor, other[name]))
            for name, tensor in first.items()
        )
        if not same:
            raise InputError(f"network {number}: has other layers or shifts than the first one")
    with torch.no_grad():
        means = {
            name: torch.stack([tensor, *(other[name] for other in others)]).mean(0)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in first.items()
        }
    models[0].load_state_dict(means)
    return models[0]


def main(
    networks: Annotated[list[Path], typer.Argument(help="Networks of the same layers and shifts.")],
    output: Annotated[Path, typer.Option(help="The file to write.")],
    dtype: Annotated[Literal["float32", "float16"], typer.Option()] = "float32",
) -> None:
    """Write the mean of networks."""
    mean = average([load_model(path) for path in networks])
    save_model(mean, output, dtype=getattr(torch, dtype))
    print(f"wrote {output}: the mean of {len(networks)} networks")


if __name__ == "__main__":
    typer.run(main)
