"""Reading the tensors of a checkpoint file without trusting it.

Nothing is unpickled but tensors and plain containers, and sizes are checked before memory is taken.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ghostsr_ext.checkpoints.unwrapping import Candidate, find_candidates
from ghostsr_ext.errors import InputError
from ghostsr_ext.text import printable

MAX_FILE_BYTES = 2 * 1024**3
"""Largest checkpoint file that is read; the largest network here has 173 MB."""

MAX_TENSORS = 20_000
"""Most tensors in a file that is read; the largest published super-resolution networks have some
thousand."""

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
# torch's loader makes these of any length that a pickle names; no state dict has one.
_BYTEARRAY = b"\nbytearray\n"
# MAX_TENSORS take about 5 MB of instructions to build them.
_MAX_PICKLE_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class StoredTensors:
    """The content of a checkpoint file.

    Attributes:
        path: The file.
        size: Its bytes.
        candidates: What may be its networks, the likeliest first, at least one.
        metadata: The metadata of a safetensors file; empty for other files.
    """

    path: Path
    size: int
    candidates: tuple[Candidate, ...]
    metadata: dict[str, str]

    def checked(self, candidate: Candidate) -> dict[str, Tensor]:
        """Return a candidate's tensors on the CPU, floating-point ones as float32.

        Raises:
            InputError: A tensor is not dense or not finite, or they claim more memory than the file
                has bytes for.
        """
        for name, tensor in candidate.tensors.items():
            if not _is_dense(tensor):
                raise InputError(
                    f"{self.path}: tensor {printable(name)} is sparse, quantised, complex, nested "
                    "or without values; a dense one is needed"
                )
        # A few stored bytes can pose as a huge tensor through zero strides.
        tensors = candidate.tensors.values()
        claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if claimed > 4 * self.size:
            raise InputError(
                f"{self.path}: its tensors claim {claimed} bytes, but the file has only {self.size}"
            )
        return {
            name: _as_float32(self.path, name, tensor) for name, tensor in candidate.tensors.items()
        }


def read_tensors(path: str | os.PathLike[str]) -> StoredTensors:
    """Read a safetensors file or a torch checkpoint (zip or legacy), told apart by their content.

    Raises:
        InputError: The file is missing, truncated, too large or no checkpoint, or holds anything
            but tensors and plain containers.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{path}: is not a file")
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: has {size} bytes; at most {MAX_FILE_BYTES} are read")
    metadata: dict[str, str] = {}
    content: Any
    # First safetensors: the length of its header may look like the magic of a pickle.
    if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= size:
        content, metadata = _read_safetensors(path)
    elif start.startswith(_ZIP_MAGIC) or start.startswith(_PICKLE_MAGIC):
        content = _read_torch(path, size, zipped=start.startswith(_ZIP_MAGIC))
    else:
        raise InputError(
            f"{path}: is no checkpoint, or a truncated one; "
            "safetensors files and state dicts saved by torch.save are read"
        )
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}; a state dict is needed")
    candidates = find_candidates(content)
    if not candidates:
        raise InputError(f"{path}: is no state dict; {_without_tensors(content)}")
    _check_count(path, max(len(candidate.tensors) for candidate in candidates))
    return StoredTensors(path, size, candidates, metadata)


def _check_count(path: Path, tensors: int) -> None:
    if tensors > MAX_TENSORS:
        raise InputError(f"{path}: has {tensors} tensors; at most {MAX_TENSORS} are read")


def open_safetensors(path: Path) -> Any:
    """Open a safetensors file, a context whose ``get_tensor`` reads one tensor.

    Raises:
        InputError: It is missing, no safetensors file or a truncated one, or has too many tensors.
    """
    with _damage_told(path):
        file: Any = safe_open(path, framework="pt", device="cpu")
    _check_count(path, len(file.keys()))
    return file


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with open_safetensors(path) as file, _damage_told(path):
        # The tensors may be views of the mapped file; a copy survives a change of the file.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: is no whole safetensors file ({error})") from error


def _read_torch(path: Path, size: int, *, zipped: bool) -> Any:
    if zipped:
        _check_archive(path, size)
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if content.find(_BYTEARRAY) >= 0:
            raise InputError(_pickle_advice(path, "GLOBAL builtins.bytearray"))
    try:
        # By its name torch would take the file for something else; an open file has none.
        with path.open("rb") as file, warnings.catch_warnings():
            # What torch warns of (odd pickles, archives of scripts) ends in an error here.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_pickle_advice(path, str(error))) from error
    except Exception as error:
        # torch reports damaged files by whatever its parser stumbles on: EOFError, KeyError,
        # RuntimeError, ...
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{path}: is a truncated or damaged torch checkpoint "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'})"
        ) from error


def _check_archive(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{path}: is a truncated or damaged archive ({error})") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: has compressed entries, which torch.save never writes")
    if any(e.filename.endswith(".pkl") and e.file_size > _MAX_PICKLE_BYTES for e in entries):
        raise InputError(f"{path}: its pickle has more than {_MAX_PICKLE_BYTES} bytes")
    if sum(entry.file_size for entry in entries) > size:
        raise InputError(f"{path}: its entries claim more bytes than the file's {size}")


def _pickle_advice(path: Path, reason: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", reason)
    what = f"holds a Python object ({found.group(1)})" if found else "is damaged or no state dict"
    return (
        f"{path}: {what}; loading more than tensors could run code, so it is refused. "
        "Save the tensors alone where the file was made: torch.save(model.state_dict(), FILE)"
    )


def _without_tensors(content: Mapping[Any, Any]) -> str:
    while len(content) == 1:
        (inner,) = content.values()
        if not isinstance(inner, Mapping) or inner is content:
            break
        content = inner
    names = [key for key in content if isinstance(key, str)]
    return f"not tensors: {printable(', '.join(names[:5]))}" if names else "it has no tensors"


def _is_dense(tensor: Tensor) -> bool:
    return not (
        tensor.is_nested
        or tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.is_complex()
        or tensor.is_meta
    )


def _as_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.contiguous()
    try:
        tensor = tensor.detach().to(torch.float32).contiguous()
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{path}: tensor {printable(name)} is of type {tensor.dtype}, which cannot be read"
        ) from error
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{path}: tensor {printable(name)} has values that are NaN or infinite")
    return tensor
