"""A file that keeps how far a long polish is, for a run that goes on where another was stopped.

It is a safetensors file whose metadata has one entry, ``ghostsr_polish``, a JSON object:

- ``format_version``: 1.
- ``recipe``: what decides the bits of the result, by names.
- ``progress``: the fields of :class:`PolishProgress`.

Its tensors are the network before the polish (``start.``) and now (``now.``), by their names in its
state dict; what the optimiser knows of each parameter (``optimizer.``); and ``order`` and
``generator``, which decide the inputs of the steps to come.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ghostsr_ext.checkpoints.tensors import open_safetensors
from ghostsr_ext.errors import InputError
from ghostsr_ext.files import atomic_write, remove_leftovers
from ghostsr_ext.text import printable

FORMAT_VERSION = 1
METADATA_KEY = "ghostsr_polish"

_SECONDS_BETWEEN = 180.0
_MOST_OF_TIME = 1 / 20
_LONGEST_TEXT = 16 * 1024**2


@dataclass(frozen=True)
class PolishProgress:
    """How far a polish is.

    Attributes:
        attempt: Which of the rates its steps are taken at, counted from 0.
        earlier_steps: Steps that the attempts before took.
        number: Steps that this attempt took.
        part: The part of the budget that is spent.
        begun: The part of it that was spent when this attempt began.
        half_way: Whether the error has been looked at half way.
        seconds: The wall time that was spent.
        asked: How often further inputs were taken.
        more: Whether there may be further ones.
        seen: For each parameter, how many of its gradients the optimiser has seen.
    """

    attempt: int
    earlier_steps: int
    number: int
    part: float
    begun: float
    half_way: bool
    seconds: float
    asked: int
    more: bool
    seen: tuple[int, ...]

    @classmethod
    def from_json(cls, values: Any) -> PolishProgress:
        """Check values from a file.

        Raises:
            ValueError: They are none that a polish has.
        """
        names = {field.name: field.type for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != set(names):
            raise ValueError("its progress has other fields")
        for name, kind in names.items():
            if not _CHECKS[str(kind)](values[name]):
                raise ValueError(f"{name} is {printable(repr(values[name]), 40)}")
        if not values["begun"] < 1:
            raise ValueError(f"begun is {values['begun']}")
        return cls(**{**values, "seen": tuple(values["seen"])})


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": _is_count,
    "bool": lambda value: isinstance(value, bool),
    "float": lambda value: (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= sys.float_info.max
    ),
    "tuple[int, ...]": lambda value: isinstance(value, list) and all(map(_is_count, value)),
}


class StoredPolish:
    """An open checkpoint.

    Attributes:
        path: The file.
        progress: How far the polish was.
    """

    def __init__(self, path: Path, file: Any, progress: PolishProgress) -> None:
        self.path, self.progress, self._file = path, progress, file
        self._names = set(file.keys())

    def tensors(self, prefix: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read tensors that are of the types and shapes of some others.

        Args:
            prefix: What stands before their names in the file.
            like: Others of these names. Nothing larger is read.

        Raises:
            InputError: One is missing, or is of another type or shape.
        """
        return {name: self._read(prefix + name, tensor) for name, tensor in like.items()}

    def order(self) -> Tensor:
        """Read the numbers of the inputs that are still to come in this round, [N]."""
        name = "order"
        rows = self._file.get_slice(name).get_shape() if name in self._names else []
        if len(rows) != 1 or rows[0] > _LONGEST_TEXT:
            raise self.damaged(f"tensor order has shape {rows}")
        return self._tensor(name)

    def damaged(self, reason: object) -> InputError:
        """Return the error to raise for a file that cannot be gone on with."""
        return _damaged(self.path, reason)

    def _read(self, name: str, like: Tensor) -> Tensor:
        if name not in self._names:
            raise self.damaged(f"it lacks {name}")
        shape = list(self._file.get_slice(name).get_shape())
        if shape != list(like.shape):
            raise self.damaged(f"tensor {name} has shape {shape}; {list(like.shape)} is needed")
        tensor = self._tensor(name)
        if tensor.dtype != like.dtype:
            raise self.damaged(f"tensor {name} has type {tensor.dtype}; {like.dtype} is needed")
        return tensor

    def _tensor(self, name: str) -> Tensor:
        try:
            # It may be a view of the mapped file.
            tensor: Tensor = self._file.get_tensor(name).clone()
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise self.damaged(error) from error
        return tensor


class PolishCheckpoint:
    """Keeps how far a polish is in a file, every three minutes.

    A polish that ends before that writes nothing. Who saves the result removes the file.

    Args:
        path: The file. It need not exist.
        recipe: Gives what decides the bits of the result, as JSON values by names. It is called
            only where there is a file to compare with, or one to write.
        overwrite: Whether a file of another recipe may be replaced.
        notify: Called with a line that says from where a polish goes on, or that it does not.

    Raises:
        InputError: There is a file that cannot be read or is damaged; or it is of another recipe,
            and ``overwrite`` is false.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        recipe: Callable[[], Mapping[str, Any]],
        *,
        overwrite: bool = False,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.path = path = Path(path)
        # As a file gives it back.
        self._recipe = functools.cache(lambda: json.loads(json.dumps(recipe(), default=str)))
        self._notify = notify
        self._written = time.monotonic()
        self._pause = _SECONDS_BETWEEN
        # Whether the file is of this polish, and whether it may be replaced.
        self._own = False
        self._replace = False
        remove_leftovers([path])
        try:
            path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"checkpoint {path}: cannot be written ({error.strerror})") from error
        with _open(path) as file:
            difference = _difference(_description(path, file)["recipe"], self._recipe())
        self._own = difference is None
        self._replace = self._own or overwrite
        if not self._replace:
            raise InputError(
                f"{path}: keeps an unfinished conversion of another kind ({difference}); give its "
                "options to go on with it, delete it to begin anew, or name another output"
            )
        if not self._own:
            self.notify(f"begins anew: {path} is of a conversion of another kind ({difference})")

    def notify(self, line: str) -> None:
        """Tell the user something."""
        if self._notify is not None:
            self._notify(line)

    @contextmanager
    def stored(self) -> Iterator[StoredPolish | None]:
        """Open what an earlier run has kept; None where there is nothing to go on with.

        Raises:
            InputError: The file is damaged.
        """
        self._written = time.monotonic()
        if not self._own:
            yield None
            return
        with _open(self.path) as file:
            values = _description(self.path, file)["progress"]
            try:
                progress = PolishProgress.from_json(values)
            except ValueError as error:
                raise _damaged(self.path, error) from error
            yield StoredPolish(self.path, file, progress)

    @property
    def kept(self) -> bool:
        """Whether the file is of this polish, by this run or an earlier one."""
        return self._own

    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self._pause

    def write(self, progress: PolishProgress, tensors: Mapping[str, Tensor]) -> bool:
        """Write the file, whole or not at all; where that fails, warn and let the polish go on.

        Returns:
            Whether it was written.

        Raises:
            InputError: Another process has written one meanwhile.
        """
        started = time.monotonic()
        if not self._replace and self.path.exists():
            raise InputError(
                f"{self.path}: is of another process that converts to the same output, or has left "
                "it; name another output"
            )
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            description = {
                "format_version": FORMAT_VERSION,
                "recipe": self._recipe(),
                "progress": dataclasses.asdict(progress),
            }
            text = json.dumps(description, allow_nan=False)
            with atomic_write(self.path, overwrite=self._replace) as temporary:
                save_file(stored, temporary, metadata={METADATA_KEY: text})
            self._own = self._replace = written = True
        # The library raises the last two for tensors that it has no type for.
        except (OSError, InputError, SafetensorError, ValueError, KeyError) as error:
            written = False
            warnings.warn(
                f"{self.path}: cannot be written ({error}); the polish goes on without it",
                stacklevel=2,
            )
        self._written = time.monotonic()
        # A network whose state takes long to write gives no large part of its time to it.
        self._pause = max(_SECONDS_BETWEEN, (self._written - started) / _MOST_OF_TIME)
        return written


def _open(path: Path) -> Any:
    try:
        return open_safetensors(path)
    except InputError as error:
        raise InputError(f"{error}; delete it to begin anew") from error


def _description(path: Path, file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get(METADATA_KEY)
    if text is None or len(text) > _LONGEST_TEXT:
        raise InputError(f"{path}: keeps no unfinished conversion; name another output")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(description, dict):
        raise _damaged(path, "its metadata is no JSON object")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {printable(repr(version), 40)}; this release goes on with "
            f"{FORMAT_VERSION}; delete the file to begin anew"
        )
    if not isinstance(description.get("recipe"), dict) or "progress" not in description:
        raise _damaged(path, "its metadata lacks the recipe or the progress")
    return description


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f"{path}: is damaged ({reason}); delete it to begin anew")


def _difference(stored: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """Say in what a recipe from a file differs; None if in nothing."""
    different = [
        f"{key} is {printable(json.dumps(stored.get(key)), 80)} there and "
        f"{printable(json.dumps(own.get(key)), 80)} here"
        for key in sorted({*stored, *own})
        if stored.get(key) != own.get(key)
    ]
    return ", ".join(different[:3]) or None
