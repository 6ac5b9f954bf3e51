"""Which pictures to enlarge, and where the results go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ghostsr_ext.errors import InputError
from ghostsr_ext.fingerprints import file_digest
from ghostsr_ext.imaging import PICTURE_SUFFIXES, WRITABLE_SUFFIXES, picture_files
from ghostsr_ext.inference.record import Record, read_record

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mkv", ".mov", ".webm", ".avi"))
"""Lower-case suffixes of the files that are taken for video."""


# Suffixes of pictures that are not written: an output of such a name is no folder.
_OTHER_SUFFIXES = frozenset((".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".tga"))


@dataclass(frozen=True)
class UpscaleJob:
    """One file to enlarge.

    Attributes:
        source: The file.
        target: Where the result goes.
        refusal: Why it cannot be done, or None.
    """

    source: Path
    target: Path
    refusal: str | None = None

    @property
    def is_video(self) -> bool:
        """Whether the suffix says that the file is a video."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES


def plan_jobs(
    sources: Sequence[str], *, scale: int, output: Path | None = None, suffix: str | None = None
) -> list[UpscaleJob]:
    """List the files that the given ones stand for, and where their results go.

    ``photo.png`` becomes ``photo_x2.png``: in ``output``, or beside it. The pictures of a folder
    and of the folders in it keep their places below ``output``, or below ``folder_x2`` beside the
    folder.

    Results are no sources: in a folder or by a pattern, a file that remembers to have been made
    here is passed over. Named itself it is enlarged, unless what it was made of is named, too.

    Args:
        sources: Files, folders and patterns such as ``"*.png"`` or ``"**/*.png"``.
        scale: Times to enlarge.
        output: A folder, which need not exist; or, for a single file, the result itself, if its
            suffix is that of a picture or video; None for none.
        suffix: Format of the results, such as ``".png"``; None for that of each picture, or PNG
            where that cannot be written.

    Returns:
        The jobs in the order of ``sources``, folders in the order of their file names; each file
        once. Files whose results would have the same name are refused, each of them.

    Raises:
        InputError: A source does not exist or a pattern matches nothing, nothing is left, or the
            output cannot be that of these sources.
    """
    if suffix is not None and suffix not in WRITABLE_SUFFIXES:
        raise InputError(f"format {suffix}: must be one of {', '.join(sorted(WRITABLE_SUFFIXES))}")
    if output is not None and _is_file_name(output):
        return [_single_job(sources, output, suffix)]
    jobs: dict[Path, UpscaleJob] = {}
    named: dict[Path, Record] = {}
    for source in sources:
        for path, folder, record in _found(source, output, scale):
            key = path.resolve()
            jobs.setdefault(key, UpscaleJob(path, _target(path, folder, scale, suffix)))
            if record is not None:
                named[key] = record
    if named and len(jobs) > 1:
        digests = {_digest(path) for path in jobs}
        for key, record in named.items():
            if record.entries.get("source") in digests and len(jobs) > 1:
                del jobs[key]
    return _with_refusals(list(jobs.values()))


def _is_file_name(output: Path) -> bool:
    known = WRITABLE_SUFFIXES | VIDEO_SUFFIXES | _OTHER_SUFFIXES
    return output.suffix.lower() in known and not output.is_dir()


def _single_job(sources: Sequence[str], output: Path, suffix: str | None) -> UpscaleJob:
    paths = [path for source in sources for path in _expand(source)]
    if len(paths) != 1 or paths[0].is_dir():
        raise InputError(
            f"output {output}: names a file, for one picture or video; name a folder for "
            f"{len(paths)} files"
            if len(paths) != 1
            else f"output {output}: names a file; name a folder for the pictures of {paths[0]}"
        )
    own = output.suffix.lower()
    is_video = paths[0].suffix.lower() in VIDEO_SUFFIXES
    allowed = VIDEO_SUFFIXES if is_video else WRITABLE_SUFFIXES
    if own not in allowed:
        raise InputError(f"output {output}: suffix must be one of {', '.join(sorted(allowed))}")
    if suffix is not None and not is_video and suffix not in (own, _SAME.get(own)):
        raise InputError(f"output {output}: is not of the format {suffix}; leave one of them out")
    return UpscaleJob(paths[0], output)


_SAME = {".jpeg": ".jpg", ".tiff": ".tif"}


def _found(
    source: str, output: Path | None, scale: int
) -> Iterator[tuple[Path, Path, Record | None]]:
    """Yield files, the folders of their results, and the records of files that are named."""
    is_pattern = not os.path.lexists(source)
    for path in _expand(source):
        if not path.is_dir():
            record = read_record(path)
            if record is None or not is_pattern:
                yield path, output or path.parent, record
            continue
        root = output or path.resolve().with_name(f"{path.resolve().name}_x{scale}")
        excluded = None if root.resolve() == path.resolve() else root
        files = picture_files(path, excluded=excluded)
        if not files:
            raise InputError(f"{path}: has no pictures")
        for file in files:
            if read_record(file) is None:
                yield file, root / file.parent.relative_to(path), None


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    # It is reported when its turn comes.
    except OSError:
        return None


def _with_refusals(jobs: Sequence[UpscaleJob]) -> list[UpscaleJob]:
    """Refuse the files whose results would have one name; the others are done."""
    sources: dict[Path, list[Path]] = {}
    for job in jobs:
        sources.setdefault(job.target, []).append(job.source)
    result = []
    for job in jobs:
        others = [path for path in sources[job.target] if path != job.source]
        if others:
            job = replace(
                job,
                refusal=f"{job.source} and {others[0]} would both be written to {job.target}; "
                "give their folder, or enlarge them one by one with --output",
            )
        result.append(job)
    return result


def shard(jobs: Sequence[UpscaleJob], index: int, count: int) -> list[UpscaleJob]:
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


def _target(source: Path, folder: Path, scale: int, suffix: str | None) -> Path:
    own = source.suffix.lower()
    if own in VIDEO_SUFFIXES:
        return folder / f"{source.stem}_x{scale}{source.suffix}"
    if suffix is None:
        suffix = source.suffix if own in WRITABLE_SUFFIXES else ".png"
    return folder / f"{source.stem}_x{scale}{suffix}"
