"""The layout of the maps inside a network, whatever its callers give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ghostsr_ext.fusion.layers import FusedLayer, channels_last_weight
from ghostsr_ext.fusion.proxies import recorded
from ghostsr_ext.fusion.rewriting import set_graph
from ghostsr_ext.models.base import channels_last


@recorded
def enter(value: Any) -> Any:
    """Return a map in the layout that is fast on its device, and other values as they are."""
    if _is_map(value):
        return channels_last(value)
    return value


@recorded
def leave(value: Any, given: Any) -> Any:
    """Return a map in the layout in which its caller gave the map ``given``."""
    is_like_map = isinstance(given, Tensor) and given.dim() == 4
    if _is_map(value) and is_like_map and given.stride(1) != 1:
        return value.contiguous()
    return value


def mark_layout(graph: fx.Graph, given: Sequence[fx.Node]) -> None:
    """Convert maps where they enter a graph, and all back where they leave it.

    Args:
        graph: The graph.
        given: Inputs that may be maps; results get the layout of the first.
    """
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    with graph.inserting_after(last):
        for node in given:
            entered = graph.call_function(enter, (node,))
            node.replace_all_uses_with(entered)
            entered.args = (node,)
    output = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(output):
        output.args = fx.map_arg(
            output.args, lambda node: graph.call_function(leave, (node, given[0]))
        )


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
    try:
        undo = [_convert_maps(module)]
    except TypeError as error:
        return f"cannot be told the layout of its input ({error})"
    undo += [channels_last_weight(m) for m in module.modules() if isinstance(m, FusedLayer)]
    try:
        if runs_alike():
            return None
    except RuntimeError:
        pass
    for put_back in undo:
        put_back()
    return "its own code needs maps that are contiguous"


def _convert_maps(module: nn.Module) -> Callable[[], None]:
    """Let ``module`` convert what it gets and returns; returns what undoes that."""
    if isinstance(module, fx.GraphModule):
        graph = copy.deepcopy(module.graph)
        mark_layout(graph, [node for node in graph.nodes if node.op == "placeholder"])
        return set_graph(module, graph)
    base = type(module)
    module.__class__ = _subclass(base)

    def undo() -> None:
        module.__class__ = base

    return undo


def _is_map(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dim() == 4
        and value.is_floating_point()
        and value.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )
