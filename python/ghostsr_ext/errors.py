"""Errors that a user can cause and can mend."""

from __future__ import annotations


class GhostsrError(Exception):
    """Base of every error that the package raises on purpose."""


class InputError(GhostsrError, ValueError):
    """An argument or a file is wrong; the message names it, what was found and what is allowed."""
