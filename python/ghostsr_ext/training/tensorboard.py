"""TensorBoard: curves, pictures, and how shifts settle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import InputError
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import ghost_layers
from ghostsr_ext.training.config import Config
from ghostsr_ext.training.observers import TrainingProgress
from ghostsr_ext.training.run_folder import RunFolder
from ghostsr_ext.training.shifts import entropy, logits_of
from ghostsr_ext.training.validation import Measurement

_EXAMPLES = 2
_EXAMPLE_SIDE = 128


class TensorBoard:
    """Writes event files.

    Args:
        run: Folder of the run; events go to its folder ``tensorboard``.
        config: Configuration of the run; its first validation set brings the example pictures.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, run: RunFolder, config: Config) -> None:
        try:
            import torch.utils.tensorboard as events
        except ImportError as error:
            raise InputError(
                'logging.tensorboard: needs the extra; pip install "ghostsr[tensorboard]"'
            ) from error
        self._events = events
        self._folder = run.tensorboard
        self._writer: Any = None
        self._sets = config.validation.sets

    def decoded(self, done: int, total: int) -> None:
        """Leave the cache out of the curves."""

    def converting(self, done: int, total: int, what: str) -> None:
        """Leave the conversion out of the curves."""

    def noted(self, line: str) -> None:
        """Leave the conversion out of the curves."""

    def started(self, step: int, steps: int) -> None:
        """Open the files; what a killed run wrote after ``step`` is hidden."""
        self._writer = self._events.SummaryWriter(
            str(self._folder), purge_step=step + 1 if step else None
        )

    def stepped(self, step: int) -> None:
        """Leave single steps out of the curves."""

    def progressed(self, progress: TrainingProgress, model: SRModel) -> None:
        """Add to the curves, and the histograms of shifts and the entropy of each layer."""
        for name, value in asdict(progress).items():
            if name != "step" and value is not None:
                self._scalar(f"training/{name}", value, progress.step)
        for name, logits in logits_of(model).items():
            self._scalar(f"shift_entropy/{name}", entropy(logits), progress.step)
        shifts = _shift_indices(model)
        if shifts.numel():
            self._writer.add_histogram("shifts", shifts, progress.step, bins=_bin_edges(model))

    def measured(
        self, step: int, measurements: Sequence[Measurement], best: bool, model: SRModel
    ) -> None:
        """Add quality and example pictures."""
        for entry in measurements:
            for name, value in (("psnr", entry.psnr), ("ssim", entry.ssim)):
                self._scalar(f"{name}/{entry.dataset} x{entry.scale}", value, step)
        upscaler = Upscaler(model)
        for pair in open_picture_set(self._sets[0]).pairs(upscaler.scale)[:_EXAMPLES]:
            side = _EXAMPLE_SIDE // upscaler.scale
            picture = upscaler(pair.read_low()[:side, :side])
            self._writer.add_image(f"examples/{pair.name}", picture, step, dataformats="HWC")

    def finished(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)


def _shift_indices(model: nn.Module) -> Tensor:
    """The candidate that each ghost of the network uses, numbered over the largest d."""
    layers = list(ghost_layers(model).values())
    max_shift = max((layer.max_shift for layer in layers), default=0)
    tables = [layer.selected_shift().cpu() for layer in layers]
    if not tables:
        return torch.empty(0, dtype=torch.int64)
    table = torch.cat(tables)
    return (table[:, 0] + max_shift) * (2 * max_shift + 1) + table[:, 1] + max_shift


def _bin_edges(model: nn.Module) -> list[float]:
    max_shift = max(layer.max_shift for layer in ghost_layers(model).values())
    return [index - 0.5 for index in range((2 * max_shift + 1) ** 2 + 1)]
