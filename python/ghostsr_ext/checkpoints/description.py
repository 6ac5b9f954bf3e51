"""The JSON description in the package's own files, checked before anything is built by it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ghostsr_ext.checkpoints.tensors import StoredTensors
from ghostsr_ext.errors import InputError
from ghostsr_ext.nn import MAX_SHIFT_LIMIT
from ghostsr_ext.text import printable

FORMAT_VERSION = 1
METADATA_KEY = "ghostsr"

_LONGEST_TEXT = 16 * 1024**2
_LONGEST_LIST = 256
_DEEPEST_HYPERPARAMETER = 4
_LARGEST_NUMBER = 2**31

Check = tuple[Callable[[Any], bool], str]
"""Whether a value is allowed, and what is."""

_COUNT: Check = (
    lambda value: type(value) is int and 1 <= value < _LARGEST_NUMBER,
    "whole numbers from 1",
)
_FLAG: Check = (lambda value: isinstance(value, bool), "true and false")
_LAYERS: dict[str, tuple[str, dict[str, Check]]] = {
    "ghost_layers": (
        "weight",
        {
            "ghost_ratio": (
                lambda value: type(value) in (int, float) and 0 <= value < 1,
                "numbers from 0 to below 1",
            ),
            "intrinsic_channels": _COUNT,
            "max_shift": (
                lambda value: type(value) is int and 0 <= value <= MAX_SHIFT_LIMIT,
                f"whole numbers from 0 to {MAX_SHIFT_LIMIT}",
            ),
            "shift_scope": (lambda value: value in ("channel", "layer"), "channel and layer"),
            "affine": _FLAG,
            "frozen": _FLAG,
        },
    ),
    "narrowed_layers": ("weight", {"in_channels": _COUNT, "out_channels": _COUNT}),
    "depthwise_layers": ("primary.weight", {"intrinsic_channels": _COUNT, "size": _COUNT}),
}
"""For each object of layers a tensor that every one of them has, and what it says about them."""


def read_description(stored: StoredTensors) -> dict[str, Any]:
    """Return the description of a network in the package's own format.

    Raises:
        InputError: It is damaged, of a later version, or describes what cannot be: numbers out of
            range, or layers that the file has no tensors for.
    """
    text = stored.metadata[METADATA_KEY]
    if len(text) > _LONGEST_TEXT:
        raise InputError(f"{stored.path}: its metadata has more than {_LONGEST_TEXT} characters")
    try:
        description = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{stored.path}: its metadata is no JSON ({error})") from error
    if not isinstance(description, dict):
        raise InputError(f"{stored.path}: its metadata is no JSON object")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{stored.path}: format version {printable(repr(version), 40)}; version "
            f"{FORMAT_VERSION} is read here"
            + ("; a newer release may read it" if isinstance(version, int) else "")
        )
    for block in (*_LAYERS, "metadata"):
        description.setdefault(block, {})
    for block in ("model", *_LAYERS, "metadata"):
        if not isinstance(description.get(block), dict):
            raise InputError(f"{stored.path}: its metadata has no object {block!r}")
    for name, value in description["model"].items():
        if not _is_hyperparameter(value):
            raise InputError(
                f"{stored.path}: hyperparameter {printable(name, 80)}: found "
                f"{printable(_short(value), 80)}; numbers within {_LARGEST_NUMBER}, short texts "
                "and short lists are allowed"
            )
    for block, (tensor, fields) in _LAYERS.items():
        for name, settings in description[block].items():
            _check_layer(stored, f"{block} {printable(name, 80)}", settings, fields)
            if f"{name}.{tensor}" not in stored.candidates[0].tensors:
                raise InputError(f"{stored.path}: lacks {printable(name, 200)}.{tensor}")
    return description


def _check_layer(
    stored: StoredTensors, place: str, settings: Any, fields: Mapping[str, Check]
) -> None:
    if not isinstance(settings, dict):
        raise InputError(f"{stored.path}: {place}: an object is needed")
    for field, (allows, allowed) in fields.items():
        if field not in settings:
            raise InputError(f"{stored.path}: {place}: lacks {field}")
        if not allows(settings[field]):
            raise InputError(
                f"{stored.path}: {place}: {field}: found "
                f"{printable(_short(settings[field]), 80)}, allowed are {allowed}"
            )


def _is_hyperparameter(value: Any, depth: int = 0) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_LIST
    if isinstance(value, int | float):
        return abs(value) <= _LARGEST_NUMBER
    if isinstance(value, list | dict):
        entries = value if isinstance(value, list) else [*value, *value.values()]
        return (
            len(entries) <= _LONGEST_LIST
            and depth < _DEEPEST_HYPERPARAMETER
            and all(_is_hyperparameter(entry, depth + 1) for entry in entries)
        )
    return value is None


def _short(value: Any) -> str:
    """Show a value without taking long over a large one."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value[:_LONGEST_LIST] if isinstance(value, str) else value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value
