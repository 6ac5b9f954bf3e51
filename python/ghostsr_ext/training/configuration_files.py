"""Configuration files: TOML in, with overrides; TOML with every default out."""

from __future__ import annotations

import copy
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from ghostsr_ext.errors import InputError
from ghostsr_ext.files import atomic_write
from ghostsr_ext.text import printable
from ghostsr_ext.training.config import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_LARGEST_FILE = 256 * 1024
_MOST_DOTS = 100
_DEEPEST = 16


def read_config(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    more: Sequence[str | os.PathLike[str]] = (),
) -> Config:
    """Read a configuration file.

    Args:
        path: A TOML file.
        more: TOML files whose values are put over those of the files before them.
        overrides: Texts such as ``training.lr=1e-4``; what stands behind ``=`` is a TOML value, or
            a text where it is none.

    Returns:
        The configuration. Relative paths stay relative: to the working folder.

    Raises:
        InputError: The file is unreadable, or a key or value is wrong; the message names each and,
            for an unknown key, the nearest right one.
    """
    values: dict[str, Any] = {}
    for file in (path, *more):
        _merge(values, _read_values(file))
    origin = " + ".join(str(file) for file in (path, *more))
    return config_from_values(values, f"config {origin}", overrides)


def _read_values(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        size = Path(path).stat().st_size
        if not Path(path).is_file() or size > _LARGEST_FILE:
            raise InputError(f"config {path}: is no file of at most {_LARGEST_FILE} bytes")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path}: cannot be read ({error})") from error
    values = _parsed(text, f"config {path}")
    _check_depth(values, f"config {path}")
    return values


def _merge(values: dict[str, Any], over: dict[str, Any]) -> None:
    """Put the values of ``over`` into ``values``, table by table."""
    for key, value in over.items():
        inner = values.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            _merge(inner, value)
        else:
            values[key] = value


def config_from_values(
    values: dict[str, Any], origin: str, overrides: Sequence[str] = ()
) -> Config:
    """Check values as a TOML file holds them.

    Args:
        values: The tables; they are left as they are.
        origin: What messages begin with.
        overrides: As in :func:`read_config`.

    Raises:
        InputError: A key or value is wrong.
    """
    _check_depth(values, origin)
    values = copy.deepcopy(values)
    for override in overrides:
        _apply(values, override)
    _check_depth(values, origin)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [_problem(dict(detail)) for detail in error.errors()]
        raise InputError(f"{origin}: " + "; ".join(problems)) from error


def write_config(config: Config, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a configuration with all its defaults as TOML; what is None is left out.

    Raises:
        InputError: ``path`` exists or cannot be written.
    """
    values = config.model_dump(mode="json", exclude_none=True)
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(tomli_w.dumps(values), encoding="utf-8")


def check_same_run(stored: Config, given: Config, origin: str) -> None:
    """Check that a run may go on by ``given``: what decides about its bits must be as stored.

    Where checkpoints and logs are concerned, and in the places of caches and the number of workers,
    it may differ.

    Args:
        stored: The run's configuration.
        given: The configuration that is asked for now.
        origin: What the message begins with.

    Raises:
        InputError: They differ; the message names each value.
    """
    first, second = (_deciding(config) for config in (stored, given))
    different = [
        f"{key} was {first.get(key)!r} and is {second.get(key)!r}"
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]
    if different:
        raise InputError(f"{origin}: cannot go on with other settings: {'; '.join(different)}")


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of configuration files, for editors that complete TOML by it."""
    return Config.model_json_schema()


_FREE_SECTIONS = ("checkpoints", "logging")
_FREE_KEYS = ("data.cache", "data.workers")


def _deciding(config: Config) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    flat = {
        f"{section}.{key}": value
        for section, keys in values.items()
        if section not in _FREE_SECTIONS
        for key, value in keys.items()
    }
    return {key: value for key, value in flat.items() if key not in _FREE_KEYS}


def _parsed(text: str, origin: str) -> dict[str, Any]:
    # The parser takes the square of the length of a dotted key.
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise InputError(f"{origin}: has a line of more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    # Besides its own errors, the parser raises Python's for numbers of too many digits and for
    # tables in tables in tables.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin}: is no TOML ({error})") from error


def _check_depth(values: dict[str, Any], origin: str) -> None:
    level: list[Any] = [values]
    for _ in range(_DEEPEST):
        level = [
            entry
            for table in level
            for entry in (table.values() if isinstance(table, dict) else table)
            if isinstance(entry, dict | list)
        ]
    if level:
        raise InputError(f"{origin}: has tables in tables, deeper than {_DEEPEST}")


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    *tables, key = name.strip().split(".")
    if not equals or not key or not all(tables):
        raise InputError(f"--set {override!r}: expected KEY=VALUE, such as training.lr=1e-4")
    try:
        value = _parsed(f"value = {text}", f"--set {name.strip()}")["value"]
    except InputError as error:
        # What is no TOML is a text; what the parser cannot take is none.
        if not isinstance(error.__cause__, tomllib.TOMLDecodeError):
            raise
        value = text
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {override!r}: {table} is a value, not a table")
        values = inner
    values[key] = value


def _problem(detail: dict[str, Any]) -> str:
    name = printable(".".join(str(part) for part in detail["loc"]), 200)
    if detail["type"] == "extra_forbidden":
        return f"{name}: unknown key; {_nearest(name)}"
    if detail["type"] == "missing":
        return f"{name}: is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{name}: {message}" if name else str(message)
    return f"{name}: {_shown(detail['input'])}: {message}"


def _shown(value: Any) -> str:
    try:
        return printable(repr(value), 200)
    # Python shows no number of more than some thousand digits.
    except ValueError:
        return "a number of too many digits"


def _nearest(name: str) -> str:
    known = list(_keys(Config))
    # A right key in a wrong table is found by its last part.
    last = name.rpartition(".")[2]
    same = [key for key in known if key.rpartition(".")[2] == last]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    table = name.rpartition(".")[0]
    siblings = [key for key in known if key.rpartition(".")[0] == table]
    return "known are " + ", ".join(siblings)


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")
