"""The type of a reader of one published key layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ghostsr_ext.checkpoints.layouts.draft import Draft


@dataclass(frozen=True)
class Layout:
    """One way in which published files name the tensors of a network.

    Attributes:
        name: What users call it.
        marks: Keys that every such file has and that together tell it from the other layouts.
        read: Finds the hyperparameters and maps the keys.
    """

    name: str
    marks: tuple[str, ...]
    read: Callable[[Draft], None]
