"""Which pictures to enlarge, and where the results go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import PICTURE_SUFFIXES, WRITABLE_SUFFIXES

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mkv", ".mov", ".webm", ".avi"))
"""Lower-case suffixes of the files that are taken for video."""


@dataclass(frozen=True)
class Job:
    """One file to enlarge.

    Attributes:
        source: The file.
        target: Where the result goes.
    """

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether the suffix says that the file is a video."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES


def plan_jobs(
    sources: Sequence[str], *, scale: int, output: Path | None = None, suffix: str | None = None
) -> list[Job]:
    """List the files that the given ones stand for, and where their results go.

    ``photo.png`` becomes ``photo_x2.png``: in ``output``, or beside it. The pictures of a folder
    and of the folders in it keep their places below ``output``, or below ``folder_x2`` beside the
    folder.

    Args:
        sources: Files, folders and patterns such as ``"*.png"`` or ``"**/*.png"``.
        scale: Times to enlarge.
        output: A folder, which need not exist; None for none.
        suffix: Format of the results, such as ``".png"``; None for that of each picture, or PNG
            where that cannot be written.

    Returns:
        The jobs in the order of ``sources``, folders in the order of their file names; each file
        once.

    Raises:
        InputError: A source does not exist or a pattern matches nothing, nothing is left, or two
            results would have the same name.
    """
    if suffix is not None and suffix not in WRITABLE_SUFFIXES:
        raise InputError(f"format {suffix}: must be one of {', '.join(sorted(WRITABLE_SUFFIXES))}")
    jobs: dict[Path, Job] = {}
    for source in sources:
        for path in _expand(source):
            if path.is_dir():
                root = output or path.resolve().with_name(f"{path.resolve().name}_x{scale}")
                found = [(file, root / file.parent.relative_to(path)) for file in _walk(path, root)]
                if not found:
                    raise InputError(f"{path}: has no pictures")
            else:
                found = [(path, output or path.parent)]
            for file, folder in found:
                jobs.setdefault(file.resolve(), Job(file, _target(file, folder, scale, suffix)))
    _check_targets(jobs.values())
    return list(jobs.values())


def shard(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """Return the part of a list that one of several machines does.

    Args:
        jobs: The same list on all of them.
        index: Which machine, from 1 to ``count``.
        count: How many there are.

    Raises:
        InputError: ``index`` or ``count`` is out of its domain.
    """
    if not 1 <= index <= count:
        raise InputError(f"shard {index}/{count}: must be i/n with i from 1 to n")
    return list(jobs[index - 1 :: count])


def _expand(source: str) -> list[Path]:
    if os.path.lexists(source):
        return [Path(source)]
    if not glob.has_magic(source):
        raise InputError(f"{source}: does not exist")
    # Path.glob takes no absolute pattern.
    matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
    known = PICTURE_SUFFIXES | VIDEO_SUFFIXES
    files = [Path(match) for match in matches if Path(match).suffix.lower() in known]
    if not files:
        raise InputError(f"{source}: matches no picture or video")
    return files


def _walk(folder: Path, excluded: Path) -> list[Path]:
    """The pictures below a folder, without those of an earlier run and hidden ones."""
    excluded = excluded.resolve()
    inside = excluded != folder.resolve()
    files = []
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (inside and (here / name).resolve() == excluded)
        )
        files += [
            here / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
        ]
    return files


def _target(source: Path, folder: Path, scale: int, suffix: str | None) -> Path:
    own = source.suffix.lower()
    if own in VIDEO_SUFFIXES:
        return folder / f"{source.stem}_x{scale}{source.suffix}"
    if suffix is None:
        suffix = source.suffix if own in WRITABLE_SUFFIXES else ".png"
    return folder / f"{source.stem}_x{scale}{suffix}"


def _check_targets(jobs: Iterable[Job]) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        other = sources.setdefault(job.target, job.source)
        if other != job.source:
            raise InputError(
                f"{other} and {job.source}: both would be written to {job.target}; "
                "give their folder, or two output folders"
            )
