"""What several commands print and write."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.text import Text

STANDARD_OUTPUT = Path("-")
_LONGEST_LINE = 2000


def say(text: object, *, error: bool = False) -> None:
    """Print lines, what comes from files in them made fit for a terminal.

    Args:
        text: One line or several.
        error: Whether they go to standard error.
    """
    from ghostsr_ext.text import printable

    for line in str(text).split("\n"):
        typer.echo(printable(line, _LONGEST_LINE), err=error)


def as_cells(values: Iterable[object]) -> list[Text]:
    """Return the cells of a row of a rich table; a name in a plain str could be markup."""
    from rich.text import Text

    from ghostsr_ext.text import printable

    return [Text(printable(value)) for value in values]


def check_output(path: Path | None, overwrite: bool) -> None:
    """Refuse before the work what ``atomic_write`` would refuse after it.

    Args:
        path: What is to be written; None or ``-`` for nothing.
        overwrite: Whether it may exist.

    Raises:
        InputError: It cannot be written, or exists and may not be replaced.
    """
    from ghostsr_ext.errors import InputError

    if path is None or path == STANDARD_OUTPUT:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"output {path}: cannot be written; name a file in a folder that exists")
    if path.exists() and not overwrite:
        raise InputError(f"output {path}: exists already; pass --overwrite to replace it")


def write_json(document: object, path: Path, overwrite: bool) -> None:
    """Write JSON values to a file, or to standard output if it is called ``-``."""
    from ghostsr_ext.files import atomic_write

    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if path == STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


_SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """A progress bar on standard error; where that is no terminal, a line every ten seconds."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft
        from rich.table import Column

        columns = (
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeLeft(),
        )
        self._terminal = sys.stderr.isatty()
        self._progress = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            expand=True,
            disable=not self._terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._started = self._last_line = time.monotonic()

    def show(self, done: int, total: int, description: str) -> None:
        """Show how many of ``total`` steps are done, and what the present one is."""
        from ghostsr_ext.text import printable

        description = printable(description)
        if self._terminal:
            self._progress.update(self._task, completed=done, total=total, description=description)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            seconds = now - self._started
            print(f"{description}: {done} of {total}, {seconds:.0f} s", file=sys.stderr, flush=True)

    def start(self) -> None:
        """Draw the bar."""
        self._progress.start()

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()

    def __enter__(self) -> ProgressBar:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


def print_warnings_in_one_line() -> None:
    """Let warnings of the package end up as its errors do."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]


def _show_warning(message: Warning | str, *_: Any) -> None:
    from ghostsr_ext.text import printable

    say(f"ghostsr: warning: {printable(message, _LONGEST_LINE)}", error=True)
