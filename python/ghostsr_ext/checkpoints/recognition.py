"""Building a network from a state dict whose keys alone say what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ghostsr_ext.checkpoints.assembly import load_strictly
from ghostsr_ext.checkpoints.layouts import LAYOUTS, Draft, Layout
from ghostsr_ext.checkpoints.probing import settle
from ghostsr_ext.checkpoints.tensors import StoredTensors
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRModel, model_from_config


def build_recognised(stored: StoredTensors, overrides: Mapping[str, Any]) -> SRModel:
    """Build the network of a file in one of the published layouts.

    Args:
        stored: The content of the file.
        overrides: Hyperparameters to use instead of what is found.

    Raises:
        InputError: No layout or more than one fits (the message says which keys decided), keys are
            missing or left over, or a tensor has the wrong shape.
    """
    layout = recognise(stored)
    draft = Draft(stored.tensors, f"{stored.path} (read as {layout.name})")
    layout.read(draft)
    draft.finish()
    draft.config |= overrides
    if "mean" in overrides:
        draft.constant_mean(overrides["mean"])
    tensors = draft.state_dict()

    def build(choice: Mapping[str, Any]) -> SRModel:
        try:
            with torch.device("meta"):
                model = model_from_config({**draft.config, **choice})
        except InputError as error:
            raise InputError(f"{stored.path} (read as {layout.name}): {error}") from error
        load_strictly(model, tensors, stored.path, draft.file_names)
        return model

    open_choices = {name: values for name, values in draft.choices.items() if name not in overrides}
    model, trials = settle(open_choices, build)
    model.origin = {
        "file": str(stored.path),
        "layout": layout.name,
        "evidence": [*stored.notes, *draft.evidence, *trials],
    }
    return model


def recognise(stored: StoredTensors) -> Layout:
    """Return the one layout whose marks are all among the keys of a file.

    Raises:
        InputError: None fits or several do.
    """
    keys = stored.tensors.keys()
    fitting = [layout for layout in LAYOUTS if all(mark in keys for mark in layout.marks)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        found = "; ".join(f"{', '.join(layout.marks)} say {layout.name}" for layout in fitting)
        raise InputError(f"{stored.path}: is ambiguous: {found}")
    nearest = max(LAYOUTS, key=lambda layout: sum(mark in keys for mark in layout.marks))
    there = [mark for mark in nearest.marks if mark in keys]
    advice = (
        f"nearest is {nearest.name}: has {', '.join(there)}, "
        f"lacks {', '.join(mark for mark in nearest.marks if mark not in keys)}"
        if there
        else f"keys begin {', '.join(list(keys)[:3])}"
    )
    raise InputError(
        f"{stored.path}: its keys fit no known network; {advice}. Known are "
        f"{', '.join(layout.name for layout in LAYOUTS)} and ghostsr's own files"
    )
