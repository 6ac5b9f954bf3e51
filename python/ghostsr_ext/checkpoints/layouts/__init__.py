"""Readers of the key layouts of published weights."""

from __future__ import annotations

from ghostsr_ext.checkpoints.layouts import carn, compact, edsr, rdn, rrdbnet, vdsr
from ghostsr_ext.checkpoints.layouts.draft import Draft
from ghostsr_ext.checkpoints.layouts.layout import Layout
from ghostsr_ext.errors import InputError

__all__ = ["Draft", "Layout", "known_layouts", "register_layout"]

_layouts: list[Layout] = [
    *edsr.LAYOUTS,
    *carn.LAYOUTS,
    *rdn.LAYOUTS,
    *vdsr.LAYOUTS,
    *rrdbnet.LAYOUTS,
    *compact.LAYOUTS,
]


def known_layouts() -> tuple[Layout, ...]:
    """Return the readers of published key layouts, those of other packages last."""
    return tuple(_layouts)


def register_layout(layout: Layout) -> None:
    """Make files whose tensors have a network's names in a layout of their own readable.

    Args:
        layout: Its name, the keys by which such files are told from all others, and the function
            that reads them. The network that it describes must be registered by ``register_model``.

    Raises:
        InputError: The layout has no name or no keys, or the name is taken.
    """
    if not isinstance(layout, Layout) or not callable(layout.read):
        raise InputError(
            f"layout: found {layout!r}; a Layout with a function to read it is allowed"
        )
    if not layout.name or not layout.marks or not all(isinstance(m, str) for m in layout.marks):
        raise InputError(f"layout {layout.name!r}: needs a name, and keys as its marks")
    known = next((other for other in _layouts if other.name == layout.name), layout)
    if known != layout:
        raise InputError(f"layout {layout.name!r}: is registered already")
    if layout not in _layouts:
        _layouts.append(layout)
