"""Enlarging many files: reading, computing and writing overlap, and one failure stops nothing."""

from __future__ import annotations

import glob
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.imaging import Picture, read_picture, read_size, write_bands
from ghostsr_ext.inference.plan import Job
from ghostsr_ext.inference.upscaler import Upscaler
from ghostsr_ext.inference.video import upscale_video

Progress = Callable[[Job, float], None]
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
        failed: With the reason.
    """

    written: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, BaseException]] = field(default_factory=list)


def upscale_files(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    *,
    quality: int = 95,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Enlarge files.

    Results appear whole or not at all, so a second run continues where the first was stopped, by
    whatever cause, and ends with the same files.

    Args:
        upscaler: The network.
        jobs: What to do.
        quality: 1 to 100, of JPEG and WebP.
        overwrite: Whether to replace results that exist instead of passing over them.
        progress: Called after each piece of a picture and each frame of a video.

    Returns:
        What became of each job.
    """
    outcome = Outcome()
    todo = []
    for job in jobs:
        if not overwrite and job.target.exists():
            outcome.skipped.append(job)
        else:
            todo.append(job)

    results: list[tuple[Job, Future[None]]] = []
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        waiting: Future[Picture] | None = None
        for job, following in zip_longest(todo, todo[1:]):
            reading, waiting = waiting, None
            report = partial(progress, job) if progress else _report_nothing
            result: Future[None] = Future()
            try:
                _make_room(job)
                if job.is_video:
                    upscale_video(
                        upscaler, job.source, job.target, overwrite=overwrite, progress=report
                    )
                    result.set_result(None)
                else:
                    picture = reading.result() if reading else read_picture(job.source)
                    if following is not None and _is_small(following):
                        waiting = reader.submit(read_picture, following.source)
                    rows = picture.pixels.shape[0] * upscaler.scale
                    encoder = _Encoder(writer, job, rows, quality, overwrite)
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
        else:
            outcome.failed.append((job, failure))
    return outcome


class _Encoder:
    """Writes a picture in another thread while it is computed in this one.

    Attributes:
        result: Done when the file is written; its exception says why it is not.
    """

    def __init__(
        self, executor: Executor, job: Job, rows: int, quality: int, overwrite: bool
    ) -> None:
        self._rows = rows
        self._bands: queue.Queue[Picture | BaseException] = queue.Queue(_WAITING_BANDS)
        self.result: Future[None] = executor.submit(
            write_bands,
            job.target,
            self._incoming(),
            rows=rows,
            quality=quality,
            overwrite=overwrite,
        )

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


def _make_room(job: Job) -> None:
    """Make the folder of a result and remove what a killed run has left for it."""
    target = job.target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pattern = f".{glob.escape(target.stem)}.????????{glob.escape(target.suffix)}"
        for leftover in target.parent.glob(pattern):
            leftover.unlink()
    except OSError as error:
        raise GhostsrError(f"output {target}: cannot be written ({error.strerror})") from error


def _is_small(job: Job) -> bool:
    if job.is_video:
        return False
    try:
        rows, columns = read_size(job.source)
    # It is reported when its turn comes.
    except GhostsrError:
        return False
    return rows * columns <= _READ_AHEAD_PIXELS
