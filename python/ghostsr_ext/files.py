"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghostsr_ext.errors import InputError


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` when the block succeeds.

    The temporary file has the suffix of ``path``, so that writers that go by the suffix work. It is
    removed when the block raises.

    Args:
        path: The file to create.
        overwrite: Whether an existing ``path`` may be replaced.

    Raises:
        InputError: The folder does not exist or cannot be written, ``path`` is a folder, or it
            exists and ``overwrite`` is false.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"output {path}: is a folder; name a file")
    if path.exists() and not overwrite:
        raise InputError(
            f"output {path}: exists already; pass overwrite (--overwrite) to replace it"
        )
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise InputError(f"output {path}: cannot be written ({error.strerror})") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; the result gets the permissions of an ordinary new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
