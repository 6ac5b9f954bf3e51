"""Benchmark sets: folders of original pictures and, where there are any, their small versions."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import imresize, picture_files, read_image, read_size
from ghostsr_ext.sample_pictures import SAMPLES, picture_folder

# As EDSR's benchmark sets, DIV2K and BasicSR name the folder of originals.
_HIGH_FOLDERS = ("HR", "*_HR", "GTmod12")
_NAMES_LISTED = 5
# An original or a small version by the end of its name, with or without the scale.
_SIDE_BY_SIDE = re.compile(
    r"(?P<name>.+)[_-](?:(?P<high>HR|GT)|(?P<low>LR))(?:x?(?P<scale>\d{1,3}))?", re.IGNORECASE
)


@dataclass(frozen=True)
class PicturePair:
    """An original and its small version, read when asked for.

    Attributes:
        name: The file name of the original without suffix, after the folders that lead to it.
        scale: How many times the original is larger.
        high_path: File of the original picture.
        low_path: The small version, or None where it is made from the original.
        size: Rows and columns of the original, cut to ``scale`` times the small version.
        reduction: What the file is reduced to before it serves as original, as a part of its rows
            and columns, 1 for the file as it is.
    """

    name: str
    scale: int
    high_path: Path
    low_path: Path | None
    size: tuple[int, int]
    reduction: float = 1.0

    def reduced(self, part: float) -> PicturePair:
        """Return the pair of the same file reduced, as MATLAB's ``imresize`` does, and then cut.

        Args:
            part: Rows and columns as a part of those of the file, above 0 and at most 1.

        Raises:
            InputError: The small version is a file of its own, or nothing would be left.
        """
        if part == 1:
            return self
        if self.low_path is not None:
            raise InputError(
                f"{self.low_path}: belongs to the original at its own size; sets that bring small "
                "versions cannot be reduced"
            )
        rows, columns = (math.ceil(part * length) for length in read_size(self.high_path))
        size = (rows - rows % self.scale, columns - columns % self.scale)
        if 0 in size:
            raise InputError(f"{self.high_path}: {columns}x{rows} is too small for x{self.scale}")
        return replace(self, name=f"{self.name} at {part:g}", size=size, reduction=part)

    def read_high(self) -> NDArray[np.uint8]:
        """Read the original, cut at the right and the bottom to ``size``.

        Returns:
            RGB values ``[H, W, 3]``.

        Raises:
            InputError: The file cannot be read, or its size has changed since it was listed.
        """
        image = read_image(self.high_path)
        if self.reduction != 1:
            image = imresize(image, self.reduction)
        rows, columns = self.size
        if image.shape[0] < rows or image.shape[1] < columns:
            raise InputError(f"{self.high_path}: has changed while the set was in use")
        return image[:rows, :columns]

    def read_low(self) -> NDArray[np.uint8]:
        """Read the small version, or make it from the original as MATLAB's ``imresize`` does.

        Returns:
            RGB values ``[H / scale, W / scale, 3]``.

        Raises:
            InputError: A file cannot be read, or its size has changed since it was listed.
        """
        rows, columns = (length // self.scale for length in self.size)
        if self.low_path is None:
            return imresize(self.read_high(), 1 / self.scale)
        image = read_image(self.low_path)
        if image.shape[:2] != (rows, columns):
            raise InputError(f"{self.low_path}: has changed while the set was in use")
        return image


@dataclass(frozen=True)
class PictureSet:
    """A folder of originals that may have folders of small versions beside it.

    Attributes:
        name: What tables call it.
        high_folder: Folder of the original pictures.
    """

    name: str
    high_folder: Path

    def low_folder(self, scale: int) -> Path | None:
        """Find the folder of small versions for a scale.

        Args:
            scale: How many times the originals are larger.

        Returns:
            The folder, or None where small versions are to be made from the originals.
        """
        high = self.high_folder
        if high.name == "GTmod12":
            candidates = [high.parent / f"LRbicx{scale}"]
        elif high.name == "HR" or high.name.endswith("_HR"):
            bicubic = high.parent / f"{high.name.removesuffix('HR')}LR_bicubic"
            candidates = [bicubic / f"X{scale}", bicubic / f"x{scale}"]
        else:
            candidates = []
        return next((path for path in candidates if path.is_dir()), None)

    def files(self, scale: int) -> tuple[dict[str, Path], dict[str, Path]]:
        """List originals, and their small versions where the set brings some, by their names.

        Args:
            scale: How many times the originals are larger.

        Returns:
            The originals by their names, in order, and the small versions by the same names: as
            many, or none.

        Raises:
            InputError: No or ambiguous pictures, originals without small versions or the other way
                round.
        """
        highs = _by_stem(self.high_folder)
        low_folder = self.low_folder(scale)
        if low_folder is None:
            return _told_apart(highs, self.high_folder, scale)
        return highs, _matched(highs, low_folder, scale)

    def pairs(self, scale: int) -> tuple[PicturePair, ...]:
        """Pair originals with small versions and check, from the headers alone, that sizes fit.

        Args:
            scale: How many times the originals are larger, 1 or more.

        Returns:
            The pairs in the order of their names; at least one.

        Raises:
            InputError: No or ambiguous pictures, originals without small versions or the other way
                round, unreadable headers, or sizes that do not fit the scale.
        """
        if isinstance(scale, bool) or scale != int(scale) or scale < 1:
            raise InputError(f"scale: {scale}; must be a whole number, 1 or more")
        highs, lows = self.files(scale)
        return tuple(
            _checked_pair(stem, path, lows.get(stem), scale) for stem, path in highs.items()
        )


def open_picture_set(folder: str | os.PathLike[str]) -> PictureSet:
    """Find the originals of a benchmark set.

    Layouts, for the example of x2 (``baby.png`` and ``babyx2.png`` are both taken for the small
    version of ``baby.png``):

    - ``HR`` with ``LR_bicubic/X2``, as EDSR's benchmark sets have it;
    - ``DIV2K_valid_HR`` with ``DIV2K_valid_LR_bicubic/X2``, or any other name before ``_HR``;
    - ``GTmod12`` with ``LRbicx2``, as BasicSR's sets have it;
    - any of the folders of originals itself;
    - a folder of ``baby_HR.png`` and ``baby_LR.png`` (or ``baby_LR2.png``, ``baby_LRx2.png``), as
      SelfExSR and RealSR have it; results of other methods beside them, such as
      ``baby_bicubic.png``, are passed over;
    - a folder of pictures, with those in the folders inside it.

    Where there is no folder of small versions for a scale, they are made from the originals by
    :func:`ghostsr_ext.imaging.imresize`, which gives the same bits as MATLAB.

    Args:
        folder: The set, or ``"samples"``: see ``picture_folder``.

    Returns:
        The set; its pictures are looked at by :meth:`PictureSet.pairs`.

    Raises:
        InputError: ``folder`` is no folder or holds several sets.
    """
    given, folder = folder, picture_folder(folder)
    if not folder.is_dir():
        raise InputError(f"data {folder}: is not a folder")
    if folder != Path(given):
        return PictureSet(SAMPLES, folder)
    high_folder = _high_folder(folder)
    named = high_folder.resolve()
    name = named.parent.name if named.name in ("HR", "GTmod12") else named.name
    return PictureSet(name, high_folder)


def _high_folder(folder: Path) -> Path:
    for pattern in _HIGH_FOLDERS:
        found = sorted(path for path in folder.glob(pattern) if path.is_dir())
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(f"data {folder}: has several sets ({names}); name one of them")
        if found:
            return found[0]
    return folder


def _by_stem(folder: Path) -> dict[str, Path]:
    files = picture_files(folder)
    if not files:
        raise InputError(
            f"data {folder}: has no pictures; expected a folder of pictures, or one with HR and "
            "LR_bicubic/X2, NAME_HR and NAME_LR_bicubic/X2, or GTmod12 and LRbicx2 (x3, x4 alike)"
        )
    stems: dict[str, Path] = {}
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in stems:
            raise InputError(f"{path}: has the same name as {stems[name].name}; remove one")
        stems[name] = path
    return stems


def _matched(highs: dict[str, Path], low_folder: Path, scale: int) -> dict[str, Path]:
    """The small version of each original, by the original's name."""
    unused = _by_stem(low_folder)
    matched: dict[str, Path] = {}
    missing = []
    for stem in highs:
        names = [name for name in (stem, f"{stem}x{scale}", f"{stem}X{scale}") if name in unused]
        if len(names) > 1:
            both = ", ".join(unused[name].name for name in names)
            raise InputError(f"{low_folder}: {both} are all small versions of {highs[stem].name}")
        if names:
            matched[stem] = unused.pop(names[0])
        else:
            missing.append(highs[stem].name)
    if missing:
        raise InputError(
            f"{low_folder}: has no small version of {_listed(missing)} "
            f"(expected names such as {Path(missing[0]).stem}x{scale}.png)"
        )
    if unused:
        extra = [path.name for path in unused.values()]
        raise InputError(f"{low_folder}: no original belongs to {_listed(extra)}")
    return matched


def _told_apart(
    files: dict[str, Path], folder: Path, scale: int
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Originals, and small versions by the originals' names, of a folder that may have both."""
    kinds = {stem: _SIDE_BY_SIDE.fullmatch(stem) for stem in files}
    of_kind = {
        kind: {stem: match for stem, match in kinds.items() if match and match[kind]}
        for kind in ("high", "low")
    }
    if not of_kind["low"]:
        return files, {}
    highs: dict[str, str] = {}
    for stem, match in of_kind["high"].items():
        if match["name"] in highs:
            raise InputError(
                f"{folder}: {files[stem].name} and {files[highs[match['name']]].name} are both "
                "originals of the same name; remove one"
            )
        highs[match["name"]] = stem
    lows: dict[str, Path] = {}
    for stem, match in of_kind["low"].items():
        if match["name"] not in highs:
            raise InputError(
                f"{folder}: {files[stem].name} is a small version by its name, and there is no "
                f"{match['name']}_HR beside it"
            )
        if match["scale"] is None or int(match["scale"]) == scale:
            high = highs[match["name"]]
            if high in lows:
                raise InputError(
                    f"{folder}: {lows[high].name} and {files[stem].name} are both small versions "
                    f"of {files[high].name}"
                )
            lows[high] = files[stem]
    missing = [files[stem].name for stem in highs.values() if stem not in lows]
    if lows and missing:
        raise InputError(f"{folder}: has no small version of {_listed(missing)} for x{scale}")
    stray = [
        path.name
        for stem, path in files.items()
        if not kinds[stem] and not any(stem.startswith((f"{n}_", f"{n}-")) for n in highs)
    ]
    if stray:
        raise InputError(f"{folder}: has pairs of *_HR and *_LR, and {_listed(stray)} of neither")
    return {stem: files[stem] for stem in files if stem in of_kind["high"]}, lows


def _checked_pair(name: str, high_path: Path, low_path: Path | None, scale: int) -> PicturePair:
    high = read_size(high_path)
    fitting = (high[0] // scale, high[1] // scale)
    if 0 in fitting:
        raise InputError(f"{high_path}: {_size(high)} is too small for x{scale}")
    if low_path is not None and (low := read_size(low_path)) != fitting:
        raise InputError(
            f"{low_path}: {_size(low)} does not fit {high_path} of {_size(high)} at x{scale}; "
            f"must be {_size(fitting)}"
        )
    return PicturePair(name, scale, high_path, low_path, (fitting[0] * scale, fitting[1] * scale))


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_LISTED
    return ", ".join(names[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
