"""Who is told how a run goes: the log, TensorBoard, the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ghostsr_ext.models import SRModel
from ghostsr_ext.training.validation import Measurement


@dataclass(frozen=True)
class TrainingProgress:
    """How a run goes, as a mean over the steps since the last one of these.

    Attributes:
        step: Number of steps done.
        loss: Mean of the losses that were read since the last report.
        gradient_norm: Before clipping, of the last step.
        lr: Learning rate of the last step.
        tau: Temperature of the shift selection, or None where no shift is learned.
        shift_entropy: Mean entropy of the shift choice over its largest value, or None.
        images_per_second: Patches, over all processes.
        data_share: Part of the time spent waiting for patches.
        other_share: Part of the time outside of patches, forward, backward and optimiser.
    """

    step: int
    loss: float
    gradient_norm: float
    lr: float
    tau: float | None
    shift_entropy: float | None
    images_per_second: float
    data_share: float
    other_share: float


class Observer(Protocol):
    """Is called by the loop in the process that writes files."""

    def decoded(self, done: int, total: int) -> None:
        """A training picture was decoded for the cache, ``done`` of ``total`` so far."""

    def converting(self, done: int, total: int, what: str) -> None:
        """Of the conversion before the run, ``done`` of ``total`` parts of ``what`` are done."""

    def noted(self, line: str) -> None:
        """A polish of the converted network goes on from where it was, or is stopped."""

    def started(self, step: int, steps: int) -> None:
        """The run begins, or goes on, at ``step`` of ``steps``."""

    def stepped(self, step: int) -> None:
        """A step is done."""

    def progressed(self, progress: TrainingProgress, model: SRModel) -> None:
        """``logging.every`` steps are done."""

    def measured(
        self, step: int, measurements: Sequence[Measurement], best: bool, model: SRModel
    ) -> None:
        """The network was measured; ``best`` tells whether it is the best so far."""

    def finished(self) -> None:
        """No more calls follow, whatever the reason."""


class JsonLog:
    """Writes one JSON object a line.

    Args:
        path: The file; it is continued. Lines of steps after ``step`` are dropped, which a run that
            was killed may have written behind its last checkpoint.
        step: Where the run starts or goes on.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = _parsed(line)
                if entry is not None and entry.get("step", 0) <= step:
                    kept.append(line)
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def decoded(self, done: int, total: int) -> None:
        """Leave the cache out of the log."""

    def converting(self, done: int, total: int, what: str) -> None:
        """Leave the conversion out of the log."""

    def noted(self, line: str) -> None:
        """Leave the conversion out of the log."""

    def started(self, step: int, steps: int) -> None:
        """Log it."""
        self._write({"event": "started", "step": step, "steps": steps})

    def stepped(self, step: int) -> None:
        """Leave single steps out of the log."""

    def progressed(self, progress: TrainingProgress, model: SRModel) -> None:
        """Log the figures."""
        self._write({"event": "progress", **asdict(progress)})

    def measured(
        self, step: int, measurements: Sequence[Measurement], best: bool, model: SRModel
    ) -> None:
        """Log each set and scale."""
        for entry in measurements:
            self._write({"event": "validation", "step": step, "best": best, **asdict(entry)})

    def finished(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
