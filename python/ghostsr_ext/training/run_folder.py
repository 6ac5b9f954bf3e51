"""The folder of a run: who may write to it, and where things are."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ghostsr_ext.errors import GhostsrError, InputError


class RunFolder:
    """Paths inside the folder of a run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The configuration with all defaults."""
        return self.path / "config.toml"

    @property
    def initial(self) -> Path:
        """The network that training starts from."""
        return self.path / "initial.safetensors"

    @property
    def teacher(self) -> Path:
        """The dense network that training learns from, when it was converted by this run."""
        return self.path / "parent.safetensors"

    @property
    def polish(self) -> Path:
        """How far the polish of the starting network is, while it is not done."""
        return self.path / "polish.safetensors"

    @property
    def best(self) -> Path:
        """The network with the highest validation PSNR."""
        return self.path / "best.safetensors"

    @property
    def final(self) -> Path:
        """The network after the last step."""
        return self.path / "final.safetensors"

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    def create(self) -> None:
        """Make the folder for a new run.

        Raises:
            InputError: It holds a run already.
            GhostsrError: It cannot be written.
        """
        if self.config.exists() or (self.checkpoints.is_dir() and any(self.checkpoints.iterdir())):
            raise InputError(
                f"run folder {self.path}: holds a run already; pass --resume to go on with it, or "
                "name another folder"
            )
        # Of a run that was killed before it had a configuration.
        self.remove_leftovers()
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GhostsrError(
                f"run folder {self.path}: cannot be made ({error.strerror})"
            ) from error

    def remove_start(self) -> None:
        """Remove what a run that could not begin has made of its starting network."""
        for path in (self.initial, self.teacher, self.polish):
            path.unlink(missing_ok=True)

    def existing(self) -> None:
        """Check that the folder holds a run.

        Raises:
            InputError: It does not.
        """
        if not self.config.exists():
            raise InputError(f"run folder {self.path}: holds no run to resume")

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a process that was killed while it wrote."""
        written = (
            self.config,
            self.initial,
            self.teacher,
            self.polish,
            self.best,
            self.final,
        )
        patterns = [f".{path.stem}.????????{path.suffix}" for path in written]
        leftovers = [path for pattern in patterns for path in self.path.glob(pattern)]
        for path in (*leftovers, *self.checkpoints.glob(".step_*.????????.pt")):
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the lock falls with the process, however it ends.

        Raises:
            InputError: Another process uses the folder.
            GhostsrError: The folder cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        holder = self.path / ".lock-holder.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(
                f"run folder {self.path}: in use by {_holder(holder)}; wait for it or name another "
                "folder"
            ) from error
        except OSError as error:
            raise GhostsrError(
                f"run folder {self.path}: cannot be written ({error.strerror})"
            ) from error
        try:
            holder.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def _holder(path: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads(path.read_text())
        return f"process {holder['process']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
