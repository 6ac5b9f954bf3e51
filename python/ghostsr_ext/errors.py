"""Errors that a user can cause and can mend."""

from __future__ import annotations

from ghostsr_ext.text import printable

_LONGEST_MESSAGE = 2000


class GhostsrError(Exception):
    """Base of every error that the package raises on purpose.

    Its text is one line that a terminal can show, whatever names from a file are in it.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), _LONGEST_MESSAGE)


class InputError(GhostsrError, ValueError):
    """An argument or a file is wrong; the message names it, what was found and what is allowed."""
