"""Putting the tensors of a file into a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel


def load_strictly(
    model: SRModel,
    tensors: Mapping[str, Tensor],
    path: Path,
    file_names: Mapping[str, str] | None = None,
) -> None:
    """Give ``model``, which may live on the meta device, its tensors.

    Args:
        model: The network; its parameters and buffers become those of ``tensors``.
        tensors: State dict of the network.
        path: The file that they come from, for messages.
        file_names: For each name in ``tensors`` its name in the file, for messages; None if they
            agree.

    Raises:
        InputError: A tensor is missing, left over, of the wrong shape or kind, or a table of a
            ghost layer has entries out of range.
    """
    names = file_names or {}
    expected = model.state_dict()
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise InputError(f"{path}: lacks {_some(names.get(name, name) for name in missing)}")
    surplus = [name for name in tensors if name not in expected]
    if surplus:
        raise InputError(f"{path}: has unknown tensors {_some(names.get(n, n) for n in surplus)}")
    for name, wanted in expected.items():
        found = tensors[name]
        if found.shape != wanted.shape:
            raise InputError(
                f"{path}: tensor {names.get(name, name)} has shape {list(found.shape)}; "
                f"{list(wanted.shape)} is needed"
            )
        if found.dtype != wanted.dtype:
            raise InputError(
                f"{path}: tensor {names.get(name, name)} has type {found.dtype}; "
                f"{wanted.dtype} is needed"
            )
    try:
        model.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        # Layers check their own tables; torch puts a headline above what they say.
        *_, reason = str(error).splitlines()
        raise InputError(f"{path}: {reason.strip()}") from error


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
