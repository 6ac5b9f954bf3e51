"""The layout of the maps inside a network, whatever its callers give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ghostsr_ext.fusion.layers import FusedLayer, channels_last_weight
from ghostsr_ext.models.base import channels_last


def enter(value: Tensor) -> Tensor:
    """Return a map in the layout that is fast on its device."""
    if _is_map(value):
        return channels_last(value)
    return value


def leave(value: Tensor, given: Tensor) -> Tensor:
    """Return a map in the layout in which its caller gave the map ``given``."""
    if _is_map(value) and given.dim() == 4 and given.stride(1) != 1:
        return value.contiguous()
    return value


class _ChannelsLastModule(nn.Module):
    """What the classes of networks have in common that get and give any layout."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tree_map = torch.utils._pytree.tree_map_only
        maps = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        given_args, given = tree_map(Tensor, enter, (args, kwargs))
        result = super().forward(*given_args, **given)
        return tree_map(Tensor, lambda value: leave(value, maps[0]), result) if maps else result

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle by the network's own class: such a class has no name."""
        reduced = super().__reduce_ex__(max(protocol, 2))
        assert isinstance(reduced, tuple)
        _, (_, *arguments), *state = reduced
        return _restored, (type(self).__mro__[2], *arguments), *state


def _subclass(base: type[nn.Module]) -> type[nn.Module]:
    return type(base.__name__, (_ChannelsLastModule, base), {"__module__": base.__module__})


def _restored(base: type[nn.Module], *arguments: Any) -> nn.Module:
    cls = _subclass(base)
    return cls.__new__(cls, *arguments)


@torch.no_grad()
def prefer_channels_last(module: nn.Module, runs_alike: Callable[[], bool]) -> str | None:
    """Let a module whose own forward stays compute in channels_last, if its code bears that.

    Args:
        module: The module; the maps that it gets are converted, and those that it returns back.
        runs_alike: Runs it and says whether the results are those of before.

    Returns:
        Why it stayed as it was, or None.
    """
    base = type(module)
    try:
        module.__class__ = _subclass(base)
    except TypeError as error:
        return f"cannot be told the layout of its input ({error})"
    undo = [channels_last_weight(m) for m in module.modules() if isinstance(m, FusedLayer)]
    try:
        if runs_alike():
            return None
    except RuntimeError:
        pass
    module.__class__ = base
    for put_back in undo:
        put_back()
    return "its own code needs maps that are contiguous"


def _is_map(value: Tensor) -> bool:
    return (
        value.dim() == 4
        and value.is_floating_point()
        and value.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )
