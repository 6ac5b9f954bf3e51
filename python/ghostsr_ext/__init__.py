"""GhostSR: convert, train, run and measure super-resolution networks on fused operators."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("ghostsr")
