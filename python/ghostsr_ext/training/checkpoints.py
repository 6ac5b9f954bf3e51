"""Checkpoints of a run: everything that the next step depends on, written whole or not at all."""

from __future__ import annotations

import io
import random
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.files import atomic_write

FORMAT_VERSION = 1
_NAME = re.compile(r"step_(\d+)\.pt")


def random_states() -> dict[str, Any]:
    """Return the states of all random generators of this process."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(name),
            torch.from_numpy(np.array(keys, dtype=np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "python": _listed(random.getstate()),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Undo everything that was drawn since :func:`random_states`."""
    torch.set_rng_state(states["torch"])
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    random.setstate(_tupled(states["python"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def write_checkpoint(folder: Path, state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step and remove the oldest ones.

    Args:
        folder: Folder of the checkpoints.
        state: Tensors, numbers, texts, lists and dictionaries; ``state["step"]`` is the step.
        keep: Checkpoints to keep, this one among them.

    Raises:
        GhostsrError: The disk is full or cannot be written; earlier checkpoints are untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **state}, buffer)
    path = folder / f"step_{state['step']:08d}.pt"
    try:
        with atomic_write(path, overwrite=True) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except (OSError, InputError) as error:
        raise GhostsrError(
            f"checkpoint {path}: cannot be written ({error}); earlier checkpoints are kept, go on "
            "with --resume"
        ) from error
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def read_newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint that can be read, or None where there is none.

    A damaged one is left where it is, with a warning, and the one before it is taken.

    Raises:
        InputError: All are damaged, or the newest is of another format version.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            version = state["format_version"]
        except Exception as error:
            # torch.load raises errors of many kinds for damaged files.
            warnings.warn(f"{path}: cannot be read ({error}); trying an earlier one", stacklevel=2)
            continue
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path}: format version {version}; this release reads {FORMAT_VERSION}"
            )
        return dict(state)
    if paths:
        raise InputError(f"{folder}: none of the {len(paths)} checkpoints can be read")
    return None


def _listed(value: Any) -> Any:
    return [_listed(entry) for entry in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(entry) for entry in value) if isinstance(value, list) else value
