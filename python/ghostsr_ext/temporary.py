"""A folder that goes with the process, however that ends."""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

# Its standard input ends when the last process that could write to it does, even if that is
# killed and can do nothing itself.
_KEEPER = """
import shutil, sys
sys.stdin.read()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
_REMOVAL_SECONDS = 30


@functools.cache
def process_folder() -> Path:
    """Make a private folder that is removed when this process ends, by whatever signal.

    Returns:
        Always the same folder in one process.
    """
    folder = tempfile.mkdtemp(prefix="ghostsr-")
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _KEEPER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tempfile.gettempdir(),
        # The interrupt that ends this process must not end the keeper.
        start_new_session=True,
    )

    def remove() -> None:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait(_REMOVAL_SECONDS)

    atexit.register(remove)
    return Path(folder)
