"""Building a network from a state dict whose keys alone say what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

from ghostsr_ext.checkpoints.assembly import load_strictly, skeleton
from ghostsr_ext.checkpoints.key_mappings import Draft, KeyMapping, known_key_mappings
from ghostsr_ext.checkpoints.probing import settle
from ghostsr_ext.checkpoints.tensors import StoredTensors
from ghostsr_ext.checkpoints.unwrapping import Candidate
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel, load_extensions, model_from_config
from ghostsr_ext.text import printable

_COMPARED = 64
"""Candidates that are looked at to say what a file is nearest to."""


class UnknownNetworkError(InputError):
    """A file whose keys fit none of the key mappings."""


def build_recognized(stored: StoredTensors, overrides: Mapping[str, Any]) -> SRModel:
    """Build the network of a file whose keys are named in a published way.

    Args:
        stored: The content of the file.
        overrides: Hyperparameters to use instead of what is found.

    Raises:
        InputError: No key mapping or more than one fits (the message says which keys decided), keys
            are missing or left over, or a tensor has the wrong shape.
    """
    mapping, candidate = recognize(stored)
    draft = Draft(stored.checked(candidate), f"{stored.path} (read as {mapping.name})")
    mapping.read(draft)
    draft.finish()
    draft.config |= overrides
    if "mean" in overrides:
        draft.constant_mean(overrides["mean"])
    tensors = draft.state_dict()

    def build(choice: Mapping[str, Any]) -> SRModel:
        try:
            with skeleton(len(candidate.tensors)):
                model = model_from_config({**draft.config, **choice})
        except InputError as error:
            raise InputError(f"{stored.path} (read as {mapping.name}): {error}") from error
        # Whatever type torch gives to new tensors.
        model.float()
        load_strictly(model, tensors, stored.path, draft.file_names)
        return model

    open_choices = {name: values for name, values in draft.choices.items() if name not in overrides}
    model, trials = settle(open_choices, build)
    model.origin = {
        "file": str(stored.path),
        "read_as": mapping.name,
        "evidence": [*candidate.notes, *draft.evidence, *trials],
    }
    return model


def recognize(stored: StoredTensors) -> tuple[KeyMapping, Candidate]:
    """Return the first of a file's candidates that fits a key mapping, and the one that it fits.

    Raises:
        InputError: None fits any, or one fits several.
    """
    failures = load_extensions()
    for candidate in stored.candidates:
        fitting = [mapping for mapping in known_key_mappings() if mapping.fits(candidate.tensors)]
        if len(fitting) > 1:
            found = "; ".join(
                f"{', '.join(mapping.marks)} say {mapping.name}" for mapping in fitting
            )
            raise InputError(f"{stored.path}: is ambiguous: {found}")
        if fitting:
            return fitting[0], candidate
    known = ", ".join(mapping.name for mapping in known_key_mappings())
    message = f"{stored.path}: its keys fit no known network; {_nearest(stored.candidates)}. "
    raise UnknownNetworkError(
        "; ".join([f"{message}Known are {known} and ghostsr's own files", *failures])
    )


def _nearest(candidates: Sequence[Candidate]) -> str:
    marks, mapping, keys = max(
        (
            (sum(mark in candidate.tensors for mark in mapping.marks), mapping, candidate.tensors)
            for candidate in candidates[:_COMPARED]
            for mapping in known_key_mappings()
        ),
        key=itemgetter(0),
    )
    # Without its prefixes a key may look like one mark of something else.
    if not marks or (marks < 2 and keys is not candidates[0].tensors):
        names = (printable(key, 80) for key in islice(candidates[0].tensors, 3))
        return f"keys begin {', '.join(names)}"
    return (
        f"nearest is {mapping.name}: "
        f"has {', '.join(mark for mark in mapping.marks if mark in keys)}, "
        f"lacks {', '.join(mark for mark in mapping.marks if mark not in keys)}"
    )
