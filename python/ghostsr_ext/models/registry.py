"""Networks by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ghostsr_ext.errors import InputError
from ghostsr_ext.models import extensions
from ghostsr_ext.models.base import SRModel


@dataclass(frozen=True)
class _Preset:
    model: type[SRModel]
    hyperparameters: Mapping[str, Any]


_presets: dict[str, _Preset] = {}
_architectures: dict[str, type[SRModel]] = {}


def register_model(preset: str, model: type[SRModel], **hyperparameters: Any) -> None:
    """Make a network known by name to ``create_model`` and to the file readers.

    Args:
        preset: The name for ``create_model``. Several presets may share one class.
        model: A subclass of ``SRModel`` whose class attribute ``architecture`` names it in files.
        hyperparameters: Keyword arguments of ``model`` that the preset sets.

    Raises:
        InputError: ``model`` is no such class or the name is taken by another one.
    """
    if not (isinstance(model, type) and issubclass(model, SRModel)):
        raise InputError(f"model: got {model!r}, allowed are subclasses of SRModel")
    if not model.architecture:
        raise InputError(f"model: {model.__name__} sets no class attribute 'architecture'")
    known = _architectures.get(model.architecture, model)
    if known is not model:
        raise InputError(f"architecture {model.architecture!r}: already names {known.__name__}")
    entry = _Preset(model, dict(hyperparameters))
    if _presets.get(preset, entry) != entry:
        raise InputError(f"preset {preset!r}: is registered already")
    _check_keywords(model, hyperparameters)
    _architectures[model.architecture] = model
    _presets[preset] = entry


def load_extensions() -> list[str]:
    """Make the networks of other packages known: see :mod:`ghostsr_ext.models.extensions`.

    Returns:
        What could not be loaded, one sentence each.
    """
    return extensions.load_extensions(register_model)


def preset_names() -> list[str]:
    """Return the names that ``create_model`` knows."""
    load_extensions()
    return sorted(_presets)


def create_model(preset: str, **overrides: Any) -> SRModel:
    """Build a network with new weights.

    Args:
        preset: One of ``preset_names()``. Where it is none of the package's own, other packages'
            networks are looked for: see :mod:`ghostsr_ext.models.extensions`.
        overrides: Keyword arguments of the network's class, such as ``scale``, that replace the
            preset's.

    Returns:
        The network, in training mode, on the current default device.

    Raises:
        InputError: The preset or a keyword is unknown (the message has the nearest right one) or a
            value is out of its domain.
    """
    if preset not in _presets:
        failures = load_extensions()
        if preset not in _presets:
            known = _suggest(preset, list(_presets))
            raise InputError("; ".join([f"model {preset!r}: unknown", known, *failures]))
    entry = _presets[preset]
    _check_keywords(entry.model, overrides)
    return _built(f"model {preset!r}", entry.model, {**entry.hyperparameters, **overrides})


def model_from_config(config: Mapping[str, Any]) -> SRModel:
    """Build the network that a ``SRModel.config`` describes, with new weights.

    Raises:
        InputError: The architecture or a hyperparameter is unknown or out of its domain.
    """
    hyperparameters = dict(config)
    architecture = hyperparameters.pop("architecture", None)
    if architecture not in _architectures:
        failures = load_extensions()
        if architecture not in _architectures:
            known = _suggest(str(architecture), list(_architectures))
            advice = (
                "a network of your own must be registered: install a package with an entry point "
                "of the group ghostsr.models, or name the module that calls register_model by "
                "--import or in the variable GHOSTSR_IMPORT"
            )
            raise InputError(
                "; ".join([f"architecture {architecture!r}: unknown", known, advice, *failures])
            )
    model = _architectures[architecture]
    _check_keywords(model, hyperparameters)
    return _built(f"architecture {architecture!r}", model, hyperparameters)


def _built(name: str, model: type[SRModel], hyperparameters: Mapping[str, Any]) -> SRModel:
    try:
        return model(**hyperparameters)
    except TypeError as error:
        raise InputError(f"{name}: bad hyperparameter ({error})") from error


def _check_keywords(model: type[SRModel], keywords: Mapping[str, Any]) -> None:
    parameters = inspect.signature(model).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for keyword in keywords:
        if keyword not in parameters:
            raise InputError(
                f"{model.__name__} argument {keyword!r}: unknown; "
                f"{_suggest(keyword, list(parameters))}"
            )


def _suggest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}known are {', '.join(sorted(known))}"
