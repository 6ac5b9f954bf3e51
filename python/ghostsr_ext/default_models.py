"""The networks that come with the package."""

from __future__ import annotations

import os
from pathlib import Path

from ghostsr_ext.errors import InputError

_FOLDER = Path(__file__).parent / "assets"


def default_models() -> dict[str, Path]:
    """List the networks in the package by name; ``x2`` enlarges twice, and so on."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a network.

    Args:
        name_or_path: The name of a network in the package, such as ``"x2"``, or a path. A name wins
            over a file of that name in the working folder; write ``./x2`` or pass a ``Path`` for
            the file.

    Returns:
        The path; not opened yet.

    Raises:
        InputError: It is neither a name nor a file.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        found = type(name_or_path).__name__
        raise InputError(f"model: found {found}; a path, or the name of a network, is allowed")
    text = os.fspath(name_or_path)
    models = default_models()
    if isinstance(name_or_path, str) and text in models:
        return models[text]
    path = Path(text)
    if not path.exists():
        known = ", ".join(models) or "none"
        raise InputError(f"model {text}: does not exist; a file or one of {known} is allowed")
    return path
