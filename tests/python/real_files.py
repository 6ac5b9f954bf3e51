"""Folders of real and of awkward files, which not every machine has whole."""

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

_PROJECT_ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GHOSTSR_DATA", _PROJECT_ROOT.parent / "shared" / "data"))
CASES = DATA.parent / "cases"


class DescribedFolder(type(Path())):  # type: ignore[misc]
    """A folder of files that not every machine has; a README.md in it, or above, names them.

    A test that asks in vain for a file that is named there is skipped. One that asks for any other
    fails: the name is wrong, and the test would be skipped for ever.
    """

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        path: Path = super().__truediv__(name)
        if not path.exists():
            missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
            readme = _description(Path(missing.parent))
            if readme is not None and not _names(readme, missing.name):
                pytest.fail(f"no {missing}, and {readme} does not name it either", pytrace=False)
            pytest.skip(f"no {missing} (GHOSTSR_DATA names the folder of research data)")
        return path


def _description(folder: Path) -> Path | None:
    """Return the README.md in a folder or the nearest one above, within all those files."""
    above = (folder, *folder.parents)
    inside = [part for part in above if part.is_relative_to(DATA) or part.is_relative_to(CASES)]
    return next((part / "README.md" for part in inside if (part / "README.md").is_file()), None)


def _names(readme: Path, name: str) -> bool:
    text = re.sub(r"\{[^}]*\}", "*", readme.read_text(encoding="utf-8"))
    patterns = re.split(r"[\s|`,/]+", text)
    # One of nothing but a star would name every file.
    return any(pattern.strip("*") and fnmatchcase(name, pattern) for pattern in patterns)
