"""Enlarging many files: reading, computing and writing overlap, and one failure stops nothing."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.files import remove_leftovers
from ghostsr_ext.fingerprints import file_digest
from ghostsr_ext.imaging import LOSSY_SUFFIXES, Picture, read_picture, read_size, write_bands
from ghostsr_ext.inference.plan import UpscaleJob
from ghostsr_ext.inference.record import Record, read_record
from ghostsr_ext.inference.upscaler import Upscaler
from ghostsr_ext.inference.video import upscale_video

UpscaleCallback = Callable[[UpscaleJob, float], None]
"""Called with a job and the part of it, in 0..1, that is computed."""

# A larger picture is not read ahead while another one is computed, to save memory.
_READ_AHEAD_PIXELS = 20_000_000
# Pieces of a result that may wait for being written.
_WAITING_BANDS = 2
_POLL_SECONDS = 0.1


@dataclass
class Outcome:
    """What became of a list of jobs.

    Attributes:
        written: Finished now.
        skipped: Finished before: the result was there.
        failed: The jobs that failed, each with the reason.
        notes: What a result lacks of its source, or else has to be known of it.
    """

    written: list[UpscaleJob] = field(default_factory=list)
    skipped: list[UpscaleJob] = field(default_factory=list)
    failed: list[tuple[UpscaleJob, BaseException]] = field(default_factory=list)
    notes: list[tuple[UpscaleJob, str]] = field(default_factory=list)


def upscale_files(
    upscaler: Upscaler,
    jobs: Sequence[UpscaleJob],
    *,
    quality: int = 95,
    overwrite: bool = False,
    keep_metadata: bool = True,
    progress: UpscaleCallback | None = None,
) -> Outcome:
    """Enlarge files.

    Results appear whole or not at all, so a second run continues where the first was stopped, by
    whatever cause, and ends with the same files. Each result remembers which network made it, how,
    and of which file: what exists and remembers the same is passed over, and what exists and does
    not is an error unless ``overwrite`` is true. Several runs may share a folder.

    Args:
        upscaler: The network.
        jobs: What to do.
        quality: 1 to 100, of JPEG and WebP.
        overwrite: Whether to replace results that exist instead of passing over them.
        keep_metadata: Whether to keep EXIF, XMP, text and titles, as far as the format of a result
            has a place for them. Color profile, gamma and resolution are always kept.
        progress: Called after each piece of a picture and each frame of a video.

    Returns:
        What became of each job.
    """
    outcome = Outcome()
    recipe = upscaler.recipe() | {"metadata": "keep" if keep_metadata else "drop"}
    todo: list[UpscaleJob] = []
    for job in jobs:
        try:
            if job.refusal is not None:
                raise InputError(job.refusal)
            done = not overwrite and _is_done(job, recipe, quality)
        except GhostsrError as error:
            outcome.failed.append((job, error))
        else:
            (outcome.skipped if done else todo).append(job)
    remove_leftovers(job.target for job in todo)

    results: list[tuple[UpscaleJob, Future[None]]] = []
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        waiting: Future[Picture] | None = None
        for job, following in zip_longest(todo, todo[1:]):
            reading, waiting = waiting, None
            report = partial(progress, job) if progress else _report_nothing
            result: Future[None] = Future()
            try:
                # Another run may have done it meanwhile.
                if not overwrite and _is_done(job, recipe, quality):
                    outcome.skipped.append(job)
                    continue
                _make_folder(job)
                software = str(_record(job, recipe, quality))
                if job.is_video:
                    notes = upscale_video(
                        upscaler,
                        job.source,
                        job.target,
                        overwrite=overwrite,
                        keep_metadata=keep_metadata,
                        software=software,
                        progress=report,
                    )
                    outcome.notes += [(job, note) for note in notes]
                    result.set_result(None)
                else:
                    picture = reading.result() if reading else read_picture(job.source)
                    if following is not None and _is_small(following):
                        waiting = reader.submit(read_picture, following.source)
                    said = picture.metadata
                    write = partial(
                        write_bands,
                        job.target,
                        rows=picture.pixels.shape[0] * upscaler.scale,
                        quality=quality,
                        overwrite=overwrite,
                        metadata=said if keep_metadata else said.needed(),
                        software=software,
                    )
                    encoder = _Encoder(writer, write, picture.pixels.shape[0] * upscaler.scale)
                    result = encoder.result
                    encoder.feed(upscaler.bands(picture), report)
            # Whatever is wrong with one file must not keep the others from being done.
            except Exception as error:
                result = Future()
                result.set_exception(error)
            results.append((job, result))
    for job, result in results:
        failure = result.exception()
        if failure is None:
            outcome.written.append(job)
        elif not overwrite and _was_done_meanwhile(job, recipe, quality):
            outcome.skipped.append(job)
        else:
            outcome.failed.append((job, failure))
    return outcome


def _was_done_meanwhile(job: UpscaleJob, recipe: Mapping[str, str], quality: int) -> bool:
    """Whether another run was faster."""
    try:
        return _is_done(job, recipe, quality)
    except InputError:
        return False


def _record(job: UpscaleJob, recipe: Mapping[str, str], quality: int) -> Record:
    """What the result of a job remembers."""
    entries = dict(recipe)
    if job.target.suffix.lower() in LOSSY_SUFFIXES:
        entries["quality"] = str(quality)
    try:
        entries["source"] = file_digest(job.source)
    except FileNotFoundError as error:
        raise InputError(f"{job.source}: does not exist") from error
    except OSError as error:
        raise InputError(f"{job.source}: cannot be read ({error.strerror})") from error
    return Record(entries)


def _is_done(job: UpscaleJob, recipe: Mapping[str, str], quality: int) -> bool:
    """Whether a result is there.

    Raises:
        InputError: A file is there that is another result, or none.
    """
    if not job.target.exists():
        return False
    found = read_record(job.target)
    difference = None if found is None else found.difference(_record(job, recipe, quality))
    if found is not None and difference is None:
        return True
    how = "not by ghostsr" if difference is None else difference
    raise InputError(
        f"output {job.target}: exists already, made {how}; pass overwrite (--overwrite) to replace "
        "it, or another output"
    )


class _Encoder:
    """Writes a picture in another thread while it is computed in this one.

    Attributes:
        result: Done when the file is written; its exception says why it is not.
    """

    def __init__(
        self, executor: Executor, write: Callable[[Iterator[Picture]], None], rows: int
    ) -> None:
        self._rows = rows
        self._bands: queue.Queue[Picture | BaseException] = queue.Queue(_WAITING_BANDS)
        self.result: Future[None] = executor.submit(write, self._incoming())

    def feed(self, bands: Iterator[Picture], report: Callable[[float], None]) -> None:
        """Compute all pieces, or as many as the writer takes."""
        done = 0
        try:
            for band in bands:
                if not self._put(band):
                    return
                done += band.pixels.shape[0]
                report(done / self._rows)
        except BaseException as error:
            # The writer has to end, too, and to remove what it has written.
            self._put(error)
            raise

    def _put(self, item: Picture | BaseException) -> bool:
        """Hand over to the writer; return whether it is still there to take it."""
        while not self.result.done():
            try:
                self._bands.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _incoming(self) -> Iterator[Picture]:
        rows = 0
        while rows < self._rows:
            item = self._bands.get()
            if isinstance(item, BaseException):
                raise item
            rows += item.pixels.shape[0]
            yield item


def _report_nothing(_part: float) -> None:
    return


def _make_folder(job: UpscaleJob) -> None:
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GhostsrError(f"output {job.target}: cannot be written ({error.strerror})") from error


def _is_small(job: UpscaleJob) -> bool:
    if job.is_video:
        return False
    try:
        rows, columns = read_size(job.source)
    # It is reported when its turn comes.
    except GhostsrError:
        return False
    return rows * columns <= _READ_AHEAD_PIXELS
