"""Photographs that every installation has, to try things on."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

SAMPLES = "samples"
"""What stands for the folder of sample pictures wherever a folder of pictures is asked for."""


def picture_folder(folder: str | os.PathLike[str]) -> Path:
    """Return a folder of pictures.

    Args:
        folder: A path, or ``"samples"`` for the two photographs of scikit-learn, 640x427 pixels
            each, which are JPEG files: to try things on, not to measure quality. A folder of that
            name in the working folder wins.
    """
    path = Path(folder)
    if path != Path(SAMPLES) or path.exists():
        return path
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "images"
