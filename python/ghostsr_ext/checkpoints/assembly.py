"""Putting the tensors of a file into a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel
from ghostsr_ext.text import printable

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.tensor, torch.rand, torch.randn)
# A layer may make tensors on its way that it does not keep.
_MADE_PER_TENSOR, _MADE_BESIDE = 4, 256


@contextmanager
def skeleton(tensors: int) -> Iterator[None]:
    """Let networks that are built inside the block have no values, and no more than a file's size.

    Args:
        tensors: How many the file has; a network that makes far more raises an InputError.
    """
    with torch.device("meta"), _Skeleton(tensors):
        yield


class _Skeleton(TorchFunctionMode):
    def __init__(self, tensors: int) -> None:
        super().__init__()
        self._tensors, self._made = tensors, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else given["tensor"]
        if func in _MAKERS:
            self._made += 1
            if self._made > _MADE_PER_TENSOR * self._tensors + _MADE_BESIDE:
                raise InputError(
                    f"describes a network of far more tensors than the file's {self._tensors}"
                )
        return func(*args, **given)


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
                f"{path}: tensor {printable(names.get(name, name))} has shape {list(found.shape)}; "
                f"{list(wanted.shape)} is needed"
            )
        if found.dtype != wanted.dtype:
            raise InputError(
                f"{path}: tensor {printable(names.get(name, name))} has type {found.dtype}; "
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
    return ", ".join(printable(name, 80) for name in listed[:5]) + more
