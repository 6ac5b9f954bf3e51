"""Measure a training step of one layer: time, and the memory kept for its backward pass.

A step is the layer's forward and backward pass, with gradients of the input, the weight, the bias
and, in a ghost layer, of the logits that select the shifts. Beside the fused ghost layer stand the
dense layer that it replaces, a plain convolution to its intrinsic channels (the least that any
ghost layer can cost) and the two ways to write a learned shift in plain torch. The ghost layers
compute the same values and gradients, which is checked first. Saved bytes are those of the tensors
that autograd keeps, parameters left out and tensors that share memory counted once.

    python benchmarks/train_step.py --markdown docs/speed.md
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.shift_selection import gumbel_noise
from measuring import (
    Clock,
    ClockOption,
    JsonOutput,
    MarkdownOutput,
    Rounds,
    Threads,
    conditions,
    conditions_text,
    markdown_table,
    publish,
    ratio,
    run_interleaved,
)
from torch import Tensor, nn
from torch.nn import functional

MEBIBYTE = 1 << 20


def _selection(layer: GhostConv2d) -> Tensor:
    """Return the straight-through one-hot choice [G, K] of the layer's shifts."""
    assert layer.logits is not None
    soft = ((layer.logits + gumbel_noise(layer.logits)) / layer.tau).softmax(dim=1)
    hard = functional.one_hot(soft.argmax(dim=1), soft.shape[1]).to(soft)
    return hard + (soft - soft.detach())


def _intrinsic(layer: GhostConv2d, image: Tensor) -> Tensor:
    return functional.conv2d(image, layer.weight, layer.bias, padding=1)


def _one_hot_depthwise(layer: GhostConv2d, image: Tensor) -> Tensor:
    """Shift by a depthwise 3x3 convolution whose filters are the one-hot choices."""
    intrinsic = _intrinsic(layer, image)
    filters = _selection(layer).view(-1, 1, 3, 3)
    ghost = functional.conv2d(intrinsic, filters, padding=1, groups=intrinsic.shape[1])
    return torch.cat([intrinsic, ghost], dim=1)


def _stack_of_shifts(layer: GhostConv2d, image: Tensor) -> Tensor:
    """Weigh all nine shifted copies of the intrinsic map."""
    intrinsic = _intrinsic(layer, image)
    height, width = intrinsic.shape[2:]
    padded = functional.pad(intrinsic, (1, 1, 1, 1))
    copies = torch.stack(
        [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)], dim=-1
    )
    ghost = (copies * _selection(layer)[:, None, None, :]).sum(dim=-1)
    return torch.cat([intrinsic, ghost], dim=1)


class Step:
    """A forward and backward pass of one way to compute a layer."""

    def __init__(
        self,
        module: nn.Module,
        image: Tensor,
        channels: int,
        forward: Callable[[Any, Tensor], Tensor] | None = None,
    ) -> None:
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.image = image.clone(memory_format=torch.channels_last).requires_grad_()
        self.forward = forward or (lambda layer, input: layer(input))
        generator = torch.Generator().manual_seed(2)
        shape = (image.shape[0], channels, *image.shape[2:])
        self.grad_output = torch.randn(shape, generator=generator).to(
            memory_format=torch.channels_last
        )

    def __call__(self) -> Tensor:
        """Run the step; gradients of an earlier one are dropped."""
        self.image.grad = None
        self.module.zero_grad(set_to_none=True)
        output = self.forward(self.module, self.image)
        output.backward(self.grad_output)
        return output.detach()

    def results(self) -> dict[str, Tensor]:
        """Return the output and all gradients of a step whose noise is always the same."""
        torch.manual_seed(3)
        output = self()
        gradients = {
            name: value.grad
            for name, value in [("image", self.image), *self.module.named_parameters()]
            if value.grad is not None
        }
        return {"output": output, **gradients}

    def saved_bytes(self) -> int:
        """Return the memory that autograd keeps between the passes, parameters left out."""
        parameters = {value.untyped_storage().data_ptr() for value in self.module.parameters()}
        storages: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = self.forward(self.module, self.image)
        del output
        return sum(storages.values())


def _steps(channels: int, batch: int, size: int) -> dict[str, Step]:
    torch.manual_seed(0)
    image = torch.randn(batch, channels, size, size)
    ghost = GhostConv2d(channels, channels, 3, padding=1)
    with torch.no_grad():
        # Sharp enough that every backward pass has a choice to make.
        ghost.logits.mul_(10)

    def twin() -> GhostConv2d:
        copy = GhostConv2d(channels, channels, 3, padding=1)
        copy.load_state_dict(ghost.state_dict())
        return copy

    half = channels - ghost.ghost_channels
    return {
        "dense": Step(nn.Conv2d(channels, channels, 3, padding=1), image, channels),
        "plain convolution to half the channels": Step(
            nn.Conv2d(channels, half, 3, padding=1), image, half
        ),
        "ghost, fused": Step(ghost, image, channels),
        "ghost, one-hot depthwise convolution": Step(twin(), image, channels, _one_hot_depthwise),
        "ghost, stack of nine shifts": Step(twin(), image, channels, _stack_of_shifts),
    }


def _check_equal(steps: dict[str, Step]) -> dict[str, float]:
    """Return how far each ghost layer's results are from the first one's, over their scale."""
    ghosts = {name: step for name, step in steps.items() if name.startswith("ghost")}
    first = next(iter(ghosts.values())).results()
    differences = {}
    for name, step in ghosts.items():
        worst = 0.0
        for key, value in step.results().items():
            scale = first[key].abs().max().item()
            worst = max(worst, (value - first[key]).abs().max().item() / scale)
        differences[name] = worst
        if not worst <= 1e-4:
            raise RuntimeError(f"{name}: differs from the fused layer by {worst:.2g}")
    return differences


def measure(channels: int, batch: int, size: int, rounds: int, clock: Clock) -> dict[str, Any]:
    """Return the measurement of one layer as JSON values."""
    steps = _steps(channels, batch, size)
    differences = _check_equal(steps)
    saved = {name: step.saved_bytes() for name, step in steps.items()}
    seconds = run_interleaved(steps, rounds, clock)
    return {
        "channels": channels,
        "batch": batch,
        "size": size,
        "rows": [
            {
                "name": name,
                "ratio": asdict(ratio(seconds[name], seconds["dense"])),
                "saved_bytes": saved[name],
                "difference": differences.get(name),
                "seconds": seconds[name],
            }
            for name in steps
        ],
    }


def report(layers: list[dict[str, Any]]) -> str:
    """Lay the measurements out as one Markdown table."""
    rows = []
    for index, first in enumerate(layers[0]["rows"]):
        row = {"training step": first["name"]}
        for layer in layers:
            measured = layer["rows"][index]
            times = measured["ratio"]
            row[f"{layer['channels']} channels: time"] = (
                f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
            )
            row[f"{layer['channels']} channels: fastest"] = f"{times['fastest']:.2f}"
            row[f"{layer['channels']} channels: saved MiB"] = (
                f"{measured['saved_bytes'] / MEBIBYTE:.1f}"
            )
        rows.append(row)
    return markdown_table(rows)


def main(
    channels: Annotated[list[int], typer.Option(help="Channels in and out.")] = [64, 256],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Patches at a time.")] = 16,
    size: Annotated[int, typer.Option(help="Height and width of a patch.")] = 48,
    rounds: Rounds = 9,
    threads: Threads = 2,
    clock: ClockOption = Clock.WALL,
    json: JsonOutput = None,
    markdown: MarkdownOutput = None,
) -> None:
    """Measure, print a table, and write what is asked for."""
    torch.set_num_threads(threads)
    surroundings = conditions(rounds, threads, clock)
    layers = [measure(one, batch, size, rounds, clock) for one in channels]
    text = (
        report(layers) + f"\nBatch {batch}, {size}x{size}, channels last; dense is 1. "
        f"{conditions_text(surroundings)}\n"
    )
    publish(text, "train_step", markdown, json, {"conditions": surroundings, "layers": layers})


if __name__ == "__main__":
    typer.run(main)
