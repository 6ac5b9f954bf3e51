"""Readers of the key mappings of published weights."""

from __future__ import annotations

from ghostsr_ext.checkpoints.key_mappings import carn, compact, edsr, rdn, rrdbnet, vdsr
from ghostsr_ext.checkpoints.key_mappings.draft import Draft
from ghostsr_ext.checkpoints.key_mappings.key_mapping import KeyMapping
from ghostsr_ext.errors import InputError

__all__ = ["Draft", "KeyMapping", "known_key_mappings", "register_key_mapping"]

_mappings: list[KeyMapping] = [
    *edsr.KEY_MAPPINGS,
    *carn.KEY_MAPPINGS,
    *rdn.KEY_MAPPINGS,
    *vdsr.KEY_MAPPINGS,
    *rrdbnet.KEY_MAPPINGS,
    *compact.KEY_MAPPINGS,
]


def known_key_mappings() -> tuple[KeyMapping, ...]:
    """Return the readers of published key mappings, those of other packages last."""
    return tuple(_mappings)


def register_key_mapping(mapping: KeyMapping) -> None:
    """Make files whose tensors have a network's names under names of their own readable.

    Args:
        mapping: Its name, the keys by which such files are told from all others, and the function
            that reads them. The network that it describes must be registered by ``register_model``.

    Raises:
        InputError: The mapping has no name or no keys, or the name is taken.
    """
    if not isinstance(mapping, KeyMapping) or not callable(mapping.read):
        raise InputError(
            f"mapping: found {mapping!r}; a KeyMapping with a function to read it is allowed"
        )
    if not mapping.name or not mapping.marks or not all(isinstance(m, str) for m in mapping.marks):
        raise InputError(f"mapping {mapping.name!r}: needs a name, and keys as its marks")
    known = next((other for other in _mappings if other.name == mapping.name), mapping)
    if known != mapping:
        raise InputError(f"mapping {mapping.name!r}: is registered already")
    if mapping not in _mappings:
        _mappings.append(mapping)
