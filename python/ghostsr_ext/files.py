"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ghostsr_ext.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is open.
    fcntl = None  # type: ignore[assignment]

# Where a file system knows no locks, only its age tells that a file is nobody's.
_ABANDONED_SECONDS = 24 * 60 * 60
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}(\.[^.]*)?", re.DOTALL)
# A file system without links between files.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` when the block succeeds.

    The temporary file has the suffix of ``path``, so that writers that go by the suffix work. It is
    removed when the block raises, and locked as long as its writer lives, so that
    :func:`remove_leftovers` knows whom it belongs to. It is on the disk before it gets its name.

    Args:
        path: The file to create.
        overwrite: Whether an existing ``path`` may be replaced.

    Raises:
        InputError: The folder does not exist or cannot be written, the disk is full, ``path`` is a
            folder, or it exists and ``overwrite`` is false: before the block or after it.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"output {path}: is a folder; name a file")
    if path.exists() and not overwrite:
        raise _exists(path)
    try:
        handle, temporary = _create_locked(path)
    except OSError as error:
        raise _cannot(path, error) from error
    try:
        yield temporary
        try:
            _give_ordinary_permissions(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            _publish(temporary, path, overwrite=overwrite)
        except FileExistsError as error:
            raise _exists(path) from error
    except OSError as error:
        # Only what the disk refused: a reader inside the block may fail, too.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
            raise
        raise _cannot(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def remove_leftovers(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Remove the temporary files that killed runs have left for some outputs.

    A file that a living process writes is locked, and stays.

    Args:
        paths: Outputs, whose folders need not exist.
    """
    wanted: dict[Path, set[tuple[str, str]]] = {}
    for path in map(Path, paths):
        wanted.setdefault(path.parent, set()).add((path.stem, path.suffix))
    for folder, names in wanted.items():
        with contextlib.suppress(OSError):
            for entry in list(folder.iterdir()):
                match = _TEMPORARY.fullmatch(entry.name)
                if match is not None and (match[1], match[2] or "") in names:
                    _remove_if_abandoned(entry)


def _create_locked(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
        )
        temporary = Path(name)
        # Until it is locked, somebody who removes leftovers takes it for one.
        if _lock(handle) is not False and temporary.exists():
            return handle, temporary
        os.close(handle)


def _remove_if_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb+") as file:
        mine = _lock(file.fileno())
        age = time.time() - path.stat().st_mtime
        if mine or (mine is None and age > _ABANDONED_SECONDS):
            path.unlink()


def _lock(handle: int) -> bool | None:
    """Lock a file; whether it is this process's now, or None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _give_ordinary_permissions(path: Path) -> None:
    """Give the permissions of any new file: mkstemp makes files private."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
        return
    try:
        # Unlike a rename, a link fails where another process was faster.
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        temporary.replace(path)


def _exists(path: Path) -> InputError:
    return InputError(f"output {path}: exists already; pass overwrite (--overwrite) to replace it")


def _cannot(path: Path, error: OSError) -> InputError:
    return InputError(f"output {path}: cannot be written ({error.strerror})")
