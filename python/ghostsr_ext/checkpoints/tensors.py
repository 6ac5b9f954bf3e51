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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ghostsr_ext.errors import InputError

MAX_FILE_BYTES = 2 * 1024**3
"""Largest checkpoint file that is read; the largest network here has 173 MB."""

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
# Training frameworks wrap the state dict; where several are present the first one wins.
_WRAPPERS = (
    "params_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "generator",
)
_PREFIXES = ("module.", "model.", "net.", "generator.")


@dataclass(frozen=True)
class StoredTensors:
    """The content of a checkpoint file.

    Attributes:
        path: The file.
        tensors: Its tensors by name, on the CPU; float16, bfloat16 and float64 are float32 here.
        metadata: The metadata of a safetensors file; empty for other files.
        notes: What was unwrapped on the way to the tensors.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()


def read_tensors(path: str | os.PathLike[str]) -> StoredTensors:
    """Read a safetensors file or a torch checkpoint (zip or legacy), told apart by their content.

    Raises:
        InputError: The file is missing, truncated, too large or no checkpoint, holds anything but
            tensors and plain containers, or a tensor in it is not finite.
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
    notes: tuple[str, ...] = ()
    # First safetensors: the length of its header may look like the magic of a pickle.
    if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= size:
        tensors, metadata = _read_safetensors(path)
    elif start.startswith(_ZIP_MAGIC) or start.startswith(_PICKLE_MAGIC):
        tensors, notes = _read_torch(path, size, zipped=start.startswith(_ZIP_MAGIC))
    else:
        raise InputError(
            f"{path}: is no checkpoint, or a truncated one; "
            "safetensors files and state dicts saved by torch.save are read"
        )
    return StoredTensors(
        path,
        {name: _checked(path, name, tensor) for name, tensor in tensors.items()},
        metadata,
        notes,
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # The tensors may be views of the mapped file; a copy survives a change of the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: is no whole safetensors file ({error})") from error


def _read_torch(
    path: Path, size: int, *, zipped: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if zipped:
        _check_archive(path, size)
    try:
        # By its name torch would take the file for something else; an open file has none.
        with path.open("rb") as file, warnings.catch_warnings():
            # What torch warns of (odd pickles, archives of scripts) ends in an error here.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(file, map_location="cpu", weights_only=True)
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
    tensors, notes = _unwrap(path, content)
    # A few stored bytes can pose as a huge tensor through zero strides.
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > 4 * size:
        raise InputError(f"{path}: its tensors claim {claimed} bytes, but the file has only {size}")
    return tensors, notes


def _check_archive(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{path}: is a truncated or damaged archive ({error})") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: has compressed entries, which torch.save never writes")
    if sum(entry.file_size for entry in entries) > size:
        raise InputError(f"{path}: its entries claim more bytes than the file's {size}")


def _pickle_advice(path: Path, reason: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", reason)
    what = f"holds a Python object ({found.group(1)})" if found else "is damaged or no state dict"
    return (
        f"{path}: {what}; loading more than tensors could run code, so it is refused. "
        "Save the tensors alone where the file was made: torch.save(model.state_dict(), FILE)"
    )


def _unwrap(path: Path, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    notes: list[str] = []
    while isinstance(content, Mapping):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        notes.append(f"state dict found under {wrapper!r}")
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}; a state dict is needed")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    others = [str(key) for key in content if str(key) not in tensors]
    if others or not tensors:
        raise InputError(
            f"{path}: is no state dict; "
            + (f"not tensors: {', '.join(others[:5])}" if others else "it has no tensors")
        )
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None):
        notes.append(f"prefix {prefix!r} removed from every key")
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors, tuple(notes)


def _checked(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise InputError(f"{path}: tensor {name} is sparse, quantised or complex; dense is needed")
    if tensor.is_meta:
        raise InputError(f"{path}: tensor {name} has no values")
    if not tensor.is_floating_point():
        return tensor.contiguous()
    tensor = tensor.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{path}: tensor {name} has values that are NaN or infinite")
    return tensor
