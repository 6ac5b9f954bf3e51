"""Exchanging one module of a network for another."""

from __future__ import annotations

from torch import nn


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``model`` has ``old``, which may be under several names."""
    places = [name for name, m in model.named_modules(remove_duplicate=False) if m is old]
    for place in places:
        model.set_submodule(place, new)
