"""Readers of the key layouts of published weights."""

from __future__ import annotations

from ghostsr_ext.checkpoints.layouts import carn, compact, edsr, rdn, rrdbnet, vdsr
from ghostsr_ext.checkpoints.layouts.draft import Draft
from ghostsr_ext.checkpoints.layouts.layout import Layout

__all__ = ["LAYOUTS", "Draft", "Layout"]

LAYOUTS: tuple[Layout, ...] = (
    *edsr.LAYOUTS,
    *carn.LAYOUTS,
    *rdn.LAYOUTS,
    *vdsr.LAYOUTS,
    *rrdbnet.LAYOUTS,
    *compact.LAYOUTS,
)
