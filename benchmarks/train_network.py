"""Measure a training step of whole networks beside its floor, and where its time goes.

The floor is what no training of the network can do without: the convolutions of its forward and
backward pass to the channels that they compute, without ghosts, activations, losses or the
optimiser, and those of the teacher's forward pass where there is one. They run alone, in this
package's kernels, on inputs of the same shapes. Each configuration of ``ghostsr train`` is measured
with its own batch, loss, teacher and optimiser; it is converted by k-means, since how the filters
are found does not change the time of a step, and without gains, which k-means has not.

    python benchmarks/train_network.py configs/carn_m_x2.toml --markdown docs/speed.md
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.training.configuration_files import read_config
from ghostsr_ext.training.data import Batch
from ghostsr_ext.training.distributed import processes
from ghostsr_ext.training.network import build_dense
from ghostsr_ext.training.run_folder import RunFolder
from ghostsr_ext.training.start import make_batches, start_networks
from ghostsr_ext.training.trainer import Trainer
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
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

FLOOR = "convolutions alone"
STEP = "step"
PARTS = ("forward pass", "teacher", "backward pass", "optimizer")
_AWAY_FROM_RENEWAL = 150
"""A step at which no optimiser looks at the inputs of layers anew."""


@dataclass(frozen=True)
class Call:
    """One convolution of a network's forward pass.

    Attributes:
        layer: The convolution to the channels that it computes, without anything that follows.
        input: A map [N, C, H, W] as it saw.
        differentiable: Whether a gradient of the input is wanted too.
    """

    layer: FusedConv2d
    input: Tensor
    differentiable: bool


class Stopwatch:
    """Adds up the time of the parts of steps.

    Args:
        clock: What to time by.

    Attributes:
        seconds: Of each part.
    """

    def __init__(self, clock: Clock) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._clock = clock
        self._start = 0.0

    def start(self, *_: object) -> None:
        """Begin a part; takes the arguments of any hook."""
        self._start = self._clock.now()

    def stop(self, part: str) -> Callable[..., None]:
        """Return a hook that ends a part."""

        def hook(*_: object) -> None:
            self.seconds[part] += self._clock.now() - self._start

        return hook

    @contextmanager
    def watching(self, trainer: Trainer) -> Iterator[None]:
        """Time the steps that a trainer takes in this context."""
        backward = torch.autograd.backward

        def timed_backward(*arguments: Any, **keywords: Any) -> None:
            self.start()
            backward(*arguments, **keywords)
            self.stop("backward pass")()

        handles: list[Any] = [
            register_optimizer_step_pre_hook(self.start),
            register_optimizer_step_post_hook(self.stop("optimizer")),
        ]
        for network, part in ((trainer.model, "forward pass"), (trainer.teacher, "teacher")):
            if network is not None:
                handles.append(network.register_forward_pre_hook(self.start))
                handles.append(network.register_forward_hook(self.stop(part)))
        with patch.object(torch.autograd, "backward", timed_backward):
            yield
        for handle in handles:
            handle.remove()


def calls_of(network: nn.Module, batch: Batch) -> list[Call]:
    """Run a network on a batch and return its convolutions in order."""
    found: list[Call] = []

    def record(layer: FusedConv2d | GhostConv2d, inputs: tuple[Any, ...]) -> None:
        image: Tensor = inputs[0]
        plain = FusedConv2d(
            layer.in_channels,
            layer.weight.shape[0],
            layer.kernel_size,
            padding=layer.padding,
            groups=layer.groups,
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found.append(Call(plain, image.detach().clone(), image.requires_grad))

    layers = [m for m in network.modules() if isinstance(m, FusedConv2d | GhostConv2d)]
    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    network(batch.inputs.contiguous(memory_format=torch.channels_last), batch.scale)
    for handle in handles:
        handle.remove()
    return found


def floor_of(trainer: Trainer, batch: Batch) -> Callable[[], None]:
    """Return the convolutions of a step, to be run."""
    student = calls_of(trainer.model, batch)
    with torch.no_grad():
        teacher = calls_of(trainer.teacher, batch) if trainer.teacher is not None else []
    gradients = [torch.empty_like(call.layer(call.input)).normal_() for call in student]

    def run() -> None:
        for call, gradient in zip(student, gradients, strict=True):
            image = call.input.requires_grad_(call.differentiable)
            call.layer.zero_grad(set_to_none=True)
            image.grad = None
            call.layer(image).backward(gradient)
        with torch.no_grad():
            for call in teacher:
                call.layer(call.input)

    return run


class Unheard:
    """Takes no notice of how the conversion goes."""

    def converting(self, done: int, total: int, what: str) -> None:
        """Take no notice."""

    def noted(self, line: str) -> None:
        """Take no notice."""


def measure(config_file: Path, rounds: int, clock: Clock) -> dict[str, Any]:
    """Return the measurement of one configuration as JSON values."""
    quick_start = ("method=kmeans", "affine=false", "polish_steps=0")
    config = read_config(
        config_file, [*(f"conversion.{setting}" for setting in quick_start), "validation.sets=[]"]
    )
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as (group, device):
        dense, _ = build_dense(config)
        batches = make_batches(config, group, dense, lambda done, total: None)
        run = RunFolder(Path(folder))
        networks = start_networks(config, run, group, device, dense, batches, Unheard())
        trainer = Trainer(config, *networks, device, group)
        batch = batches[0]

        watch = Stopwatch(clock)

        def step() -> None:
            trainer.step = _AWAY_FROM_RENEWAL
            # The floor's backward passes are none of a step's parts.
            with watch.watching(trainer):
                trainer.train_step([batch])

        trainer.train_step([batch])
        functions = {FLOOR: floor_of(trainer, batch), STEP: step, "batch": lambda: batches[1]}
        seconds = run_interleaved(functions, rounds, clock)
    whole = sum(watch.seconds.values())
    return {
        "config": config_file.stem,
        "patches": list(batch.inputs.shape),
        "optimizer": config.training.optimizer,
        "seconds": seconds,
        "ratio": asdict(ratio(seconds[STEP], seconds[FLOOR])),
        "batch": asdict(ratio(seconds["batch"], seconds[STEP])),
        "parts": {part: spent / whole for part, spent in watch.seconds.items()},
    }


def report(measured: list[dict[str, Any]]) -> str:
    """Lay the measurements out as a Markdown table."""
    rows = []
    for one in measured:
        times = one["ratio"]
        rows.append(
            {
                "configuration": f"{one['config']}, {one['optimizer']}",
                "step over convolutions": (
                    f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
                ),
                "patches a second": (
                    f"{one['patches'][0] / statistics.median(one['seconds'][STEP]):.0f}"
                ),
                **{part: f"{one['parts'][part]:.0%}" for part in PARTS},
                "making a batch, beside a step": f"{one['batch']['median']:.0%}",
            }
        )
    return markdown_table(rows)


def main(
    configs: Annotated[list[Path], typer.Argument(help="Configurations of ghostsr train.")],
    rounds: Rounds = 9,
    threads: Threads = 2,
    clock: ClockOption = Clock.WALL,
    json: JsonOutput = None,
    markdown: MarkdownOutput = None,
) -> None:
    """Measure, print a table, and write what is asked for."""
    torch.set_num_threads(threads)
    surroundings = conditions(rounds, threads, clock)
    measured = [measure(config, rounds, clock) for config in configs]
    text = f"{report(measured)}\n{conditions_text(surroundings)}\n"
    publish(
        text,
        "train_network",
        markdown,
        json,
        {"conditions": surroundings, "configurations": measured},
    )


if __name__ == "__main__":
    typer.run(main)
