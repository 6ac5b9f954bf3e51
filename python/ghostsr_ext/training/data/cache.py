"""Making a store of decoded pictures once, whoever comes first."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ghostsr_ext.datasets import PicturePair, open_picture_set
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.imaging import read_size
from ghostsr_ext.training.data.store import FORMAT_VERSION, PictureStore, write_store

DecodingCallback = Callable[[int, int], None]
"""Called after each picture with the pictures done and the pictures in all."""


def default_cache_folder() -> Path:
    """Return the folder of the user's caches that belongs to this package."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ghostsr"


def open_cached(
    folders: Sequence[Path],
    scale: int,
    patch: int,
    cache: Path | None = None,
    *,
    sizes: Sequence[float] = (1.0,),
    on_unreadable: Literal["fail", "skip"] = "fail",
    progress: DecodingCallback | None = None,
) -> PictureStore:
    """Return the decoded pictures of several sets, made now or by an earlier run.

    What was made is found again by the paths, sizes and times of the files. Small versions that a
    set does not bring are made as MATLAB's ``imresize`` makes them. Processes that start at once
    wait for the first of them.

    Args:
        folders: Sets, see :func:`ghostsr_ext.datasets.open_picture_set`.
        scale: How many times the originals are larger.
        patch: Pixels that each side of a small version must have at least.
        cache: Where to keep it; None for :func:`default_cache_folder`.
        sizes: Sizes at which each picture is used, as parts of its own, at most 1.
        on_unreadable: Whether a picture that is broken or too small ends the run, or is left out
            with a warning. In a set that brings its own small versions, unreadable headers and
            sizes that do not fit are always an error.
        progress: Called while pictures are decoded.

    Raises:
        InputError: A set is wrong, or a picture is broken or too small and ``on_unreadable`` is
            "fail".
        GhostsrError: The cache cannot be written.
    """
    skip = on_unreadable == "skip"
    whole = [pair for folder in folders for pair in _pairs(folder, scale, skip)]
    reduced = (_reduced(pair, size, skip) for size in sizes for pair in whole)
    pairs = [pair for pair in reduced if pair is not None]
    cache = default_cache_folder() if cache is None else cache
    target = cache / f"pictures-{_fingerprint(pairs, scale, patch, on_unreadable)}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{target.name}.lock"):
            if not target.is_dir():
                _build(target, pairs, scale, patch, skip, progress)
            store = PictureStore(target)
    except OSError as error:
        raise GhostsrError(f"cache {cache}: cannot be written ({error.strerror})") from error
    store.verify()
    return store


def _pairs(folder: Path, scale: int, skip: bool) -> Sequence[PicturePair]:
    pictures = open_picture_set(folder)
    highs, lows = pictures.files(scale)
    if not skip or lows:
        return pictures.pairs(scale)
    pairs = []
    for name, path in highs.items():
        try:
            rows, columns = read_size(path)
        except InputError as error:
            warnings.warn(f"left out: {error}", stacklevel=3)
            continue
        size = (rows - rows % scale, columns - columns % scale)
        pairs.append(PicturePair(name, scale, path, None, size))
    return pairs


def _reduced(pair: PicturePair, size: float, skip: bool) -> PicturePair | None:
    try:
        return pair.reduced(size)
    except InputError as error:
        if not skip or pair.low_path is not None:
            raise
        warnings.warn(f"left out at {size:g} of its size: {error}", stacklevel=4)
        return None


def _fingerprint(pairs: Sequence[PicturePair], scale: int, patch: int, on_unreadable: str) -> str:
    files = [path for pair in pairs for path in (pair.high_path, pair.low_path) if path]
    entries = [(str(path.resolve()), *_size_and_time(path)) for path in files]
    reductions = [pair.reduction for pair in pairs]
    text = json.dumps([FORMAT_VERSION, scale, patch, on_unreadable, entries, reductions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _build(
    target: Path,
    pairs: Sequence[PicturePair],
    scale: int,
    patch: int,
    skip: bool,
    progress: DecodingCallback | None,
) -> None:
    # Of processes that were killed; whoever is here holds the lock.
    for leftover in target.parent.glob(f".{target.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        write_store(unfinished, scale, _decoded(pairs, patch, skip, progress))
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _decoded(
    pairs: Sequence[PicturePair], patch: int, skip: bool, progress: DecodingCallback | None
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    usable = False
    for done, pair in enumerate(pairs, 1):
        try:
            rows, columns = pair.size
            if min(rows, columns) // pair.scale < patch:
                raise InputError(
                    f"{pair.high_path}: {columns}x{rows} at x{pair.scale} is smaller than a patch "
                    f"of {patch}x{patch}; lower data.patch"
                )
            high, low = pair.read_high(), pair.read_low()
        except InputError as error:
            if not skip:
                raise InputError(
                    f'{error} (data.on_unreadable = "skip" leaves such pictures out)'
                ) from error
            warnings.warn(f"left out: {error}", stacklevel=2)
        else:
            usable = True
            yield pair.name, high, low
        if progress is not None:
            progress(done, len(pairs))
    if not usable:
        raise InputError("data.train: none of the pictures can be used")
