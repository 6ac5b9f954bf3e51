"""Networks of other packages: found by entry points, or by modules that are named.

A package makes its networks known by an entry point of the group ``ghostsr.models``::

    [project.entry-points."ghostsr.models"]
    tiny = "my_package.networks"

The module is imported when a name that the package does not know is looked up. It calls
``register_model`` and, for files of its own making, ``register_key_mapping``. An entry point may
also name a subclass of ``SRModel``, which is then registered under the entry point's name, or a
function without arguments, which is called.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ghostsr_ext.errors import InputError
from ghostsr_ext.models.base import SRModel

ENTRY_POINT_GROUP = "ghostsr.models"
IMPORT_VARIABLE = "GHOSTSR_IMPORT"
"""Environment variable with names of modules, separated by commas or spaces."""

_begun: set[str] = set()
_failures: dict[str, str] = {}


def import_modules(names: Iterable[str], source: str = "--import") -> None:
    """Import modules that register networks, from the working folder, too.

    Args:
        names: Modules, as ``import`` names them.
        source: What named them, for messages.

    Raises:
        InputError: A module cannot be imported; the message says why.
    """
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise InputError(
                f"{source}: found {name!r}; the name of a module such as my_package.networks is "
                "allowed"
            )
        # Last, so that no file of the working folder takes the place of an installed package.
        folder = str(Path.cwd())
        if folder not in sys.path:
            sys.path.append(folder)
        try:
            importlib.import_module(name)
        except Exception as error:
            # Whatever a module of anyone's raises.
            raise InputError(f"{source} {name}: cannot be imported ({_reason(error)})") from error


def load_extensions(register: Callable[[str, type[SRModel]], None]) -> list[str]:
    """Load what ``GHOSTSR_IMPORT`` names and every entry point, each once.

    A package that cannot be loaded does not stop the others.

    Args:
        register: Makes a class known under the name of its entry point.

    Returns:
        What could not be loaded, one sentence each.

    Raises:
        InputError: A module that ``GHOSTSR_IMPORT`` names cannot be imported.
    """
    named = [name for name in re.split(r"[,\s]+", os.environ.get(IMPORT_VARIABLE, "")) if name]
    import_modules(named, IMPORT_VARIABLE)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        known_as = f"{entry.name} = {entry.value}"
        if known_as in _begun:
            continue
        # Noted first: what is loaded may look for networks in its turn.
        _begun.add(known_as)
        try:
            _load(entry, register)
        except Exception as error:
            package = "a package" if entry.dist is None else f"package {entry.dist.name}"
            _failures[known_as] = (
                f"entry point {entry.name!r} of {package} cannot be loaded ({_reason(error)})"
            )
    return list(_failures.values())


def _load(entry: EntryPoint, register: Callable[[str, type[SRModel]], None]) -> None:
    target = entry.load()
    if isinstance(target, type) and issubclass(target, SRModel):
        register(entry.name, target)
    elif inspect.isroutine(target):
        target()
    elif not inspect.ismodule(target):
        raise InputError(
            f"found a {type(target).__name__}; a module, a subclass of SRModel or a function is "
            "allowed"
        )


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
