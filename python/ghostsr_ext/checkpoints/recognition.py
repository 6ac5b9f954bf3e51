"""Building a network from a state dict whose keys alone say what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

from ghostsr_ext.checkpoints.assembly import load_strictly, skeleton
from ghostsr_ext.checkpoints.layouts import Draft, Layout, known_layouts
from ghostsr_ext.checkpoints.probing import settle
from ghostsr_ext.checkpoints.tensors import StoredTensors
from ghostsr_ext.checkpoints.unwrapping import Candidate
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel, load_extensions, model_from_config
from ghostsr_ext.text import printable

_COMPARED = 64
"""Candidates that are looked at to say what a file is nearest to."""


class UnknownNetworkError(InputError):
    """A file whose keys fit none of the layouts."""


def build_recognised(stored: StoredTensors, overrides: Mapping[str, Any]) -> SRModel:
    """Build the network of a file in one of the published layouts.

    Args:
        stored: The content of the file.
        overrides: Hyperparameters to use instead of what is found.

    Raises:
        InputError: No layout or more than one fits (the message says which keys decided), keys are
            missing or left over, or a tensor has the wrong shape.
    """
    layout, candidate = recognise(stored)
    draft = Draft(stored.checked(candidate), f"{stored.path} (read as {layout.name})")
    layout.read(draft)
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
            raise InputError(f"{stored.path} (read as {layout.name}): {error}") from error
        # Whatever type torch gives to new tensors.
        model.float()
        load_strictly(model, tensors, stored.path, draft.file_names)
        return model

    open_choices = {name: values for name, values in draft.choices.items() if name not in overrides}
    model, trials = settle(open_choices, build)
    model.origin = {
        "file": str(stored.path),
        "layout": layout.name,
        "evidence": [*candidate.notes, *draft.evidence, *trials],
    }
    return model


def recognise(stored: StoredTensors) -> tuple[Layout, Candidate]:
    """Return the first of a file's candidates that fits a layout, and the one layout that it fits.

    Raises:
        InputError: None fits any, or one fits several.
    """
    failures = load_extensions()
    for candidate in stored.candidates:
        fitting = [layout for layout in known_layouts() if layout.fits(candidate.tensors)]
        if len(fitting) > 1:
            found = "; ".join(f"{', '.join(layout.marks)} say {layout.name}" for layout in fitting)
            raise InputError(f"{stored.path}: is ambiguous: {found}")
        if fitting:
            return fitting[0], candidate
    known = ", ".join(layout.name for layout in known_layouts())
    message = f"{stored.path}: its keys fit no known network; {_nearest(stored.candidates)}. "
    raise UnknownNetworkError(
        "; ".join([f"{message}Known are {known} and ghostsr's own files", *failures])
    )


def _nearest(candidates: Sequence[Candidate]) -> str:
    marks, layout, keys = max(
        (
            (sum(mark in candidate.tensors for mark in layout.marks), layout, candidate.tensors)
            for candidate in candidates[:_COMPARED]
            for layout in known_layouts()
        ),
        key=itemgetter(0),
    )
    # Without its prefixes a key may look like one mark of something else.
    if not marks or (marks < 2 and keys is not candidates[0].tensors):
        names = (printable(key, 80) for key in islice(candidates[0].tensors, 3))
        return f"keys begin {', '.join(names)}"
    return (
        f"nearest is {layout.name}: "
        f"has {', '.join(mark for mark in layout.marks if mark in keys)}, "
        f"lacks {', '.join(mark for mark in layout.marks if mark not in keys)}"
    )
