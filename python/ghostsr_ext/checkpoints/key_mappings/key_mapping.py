"""The type of a reader of one published key mapping."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ghostsr_ext.checkpoints.key_mappings.draft import Draft


@dataclass(frozen=True)
class KeyMapping:
    """One way in which published files name the tensors of a network.

    Attributes:
        name: What users call it.
        marks: Keys that every such file has and that together tell it from the other mappings.
        read: Finds the hyperparameters and maps the keys.
        beginning: What all keys of such a file begin with, where others have its marks, too.
    """

    name: str
    marks: tuple[str, ...]
    read: Callable[[Draft], None]
    beginning: str = ""

    def fits(self, keys: Collection[str]) -> bool:
        """Whether a file with these keys fits this mapping."""
        return all(mark in keys for mark in self.marks) and all(
            key.startswith(self.beginning) for key in keys
        )
