"""How long work tells its caller how far it is."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[int, int, str], None]
"""Called after each step with the steps done, the steps in all, and what was done."""
