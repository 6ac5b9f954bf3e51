"""Concatenations that repeat one another, as in dense blocks, made one growing map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ghostsr_ext.fusion.observation import Observation
from ghostsr_ext.fusion.proxies import recorded
from ghostsr_ext.models.layers import ChannelStack
from ghostsr_ext.nn import GhostConv2d

_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)


@dataclass
class _Chain:
    """Concatenations each of which continues the one before it.

    Attributes:
        nodes: The concatenations.
        pieces: What each of them adds.
    """

    nodes: list[fx.Node]
    pieces: list[list[fx.Node]]


@recorded
def start_stack(channels: int, first: Tensor) -> ChannelStack:
    """Return a stack with room for ``channels`` that begins with ``first``."""
    return ChannelStack(first, channels)


@recorded
def extend_stack(stack: ChannelStack, *pieces: Tensor) -> Tensor:
    """Put ``pieces`` behind what is in ``stack`` and return all of it."""
    for piece in pieces:
        stack.append(piece)
    return stack.joined


def stack_concatenations(
    graph: fx.Graph, modules: Mapping[str, nn.Module], seen: dict[fx.Node, Observation]
) -> int:
    """Replace concatenations by stacks where that is safe; return how many were replaced."""
    replaced = 0
    for chain in _chains(graph, seen):
        if len(chain.nodes) > 1 and _is_safe(chain, graph, modules, seen):
            _replace(chain, graph, seen)
            replaced += len(chain.nodes)
    return replaced


def _chains(graph: fx.Graph, seen: Mapping[fx.Node, Observation]) -> list[_Chain]:
    chains: list[_Chain] = []
    for node in graph.nodes:
        pieces = _concatenated(node, seen)
        if pieces is None:
            continue
        for chain in reversed(chains):
            added = _continuation(chain, pieces)
            if added:
                chain.nodes.append(node)
                chain.pieces.append(added)
                break
        else:
            chains.append(_Chain([node], [pieces]))
    return chains


def _continuation(chain: _Chain, pieces: list[fx.Node]) -> list[fx.Node]:
    """Return what ``pieces`` add to all that a chain has; nothing where they do not continue it."""
    if pieces[0] is chain.nodes[-1]:
        return pieces[1:]
    before = [piece for group in chain.pieces for piece in group]
    return pieces[len(before) :] if pieces[: len(before)] == before else []


def _concatenated(node: fx.Node, seen: Mapping[fx.Node, Observation]) -> list[fx.Node] | None:
    if node.op != "call_function" or node.target not in _CONCATENATIONS:
        return None
    pieces = node.args[0] if node.args else node.kwargs.get("tensors")
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if not isinstance(pieces, list | tuple) or not all(isinstance(p, fx.Node) for p in pieces):
        return None
    shapes = seen[node].shapes
    is_map = bool(shapes) and all(len(shape) == 4 for shape in shapes)
    same_kind = all(seen[piece].kind == seen[node].kind for piece in pieces)
    return list(pieces) if is_map and same_kind and dim in (1, -3) else None


def _is_safe(
    chain: _Chain,
    graph: fx.Graph,
    modules: Mapping[str, nn.Module],
    seen: Mapping[fx.Node, Observation],
) -> bool:
    widths = {shape[1] for shape in seen[chain.nodes[-1]].shapes}
    if len(widths) != 1:
        return False
    for node in chain.nodes[:-1]:
        for user in node.users:
            # Others may want a map without gaps.
            reads = user.op == "call_module" and isinstance(
                modules[str(user.target)], nn.Conv2d | GhostConv2d
            )
            if user not in chain.nodes and not (reads and user.args[0] is node):
                return False
    joined = frozenset[int]().union(*(seen[node].storages for node in chain.nodes))
    pieces = [piece for group in chain.pieces for piece in group]
    copied = frozenset[int]().union(*(seen[piece].storages for piece in pieces))
    nodes = list(graph.nodes)
    between = nodes[nodes.index(chain.nodes[0]) : nodes.index(chain.nodes[-1])]
    return not any(seen[node].overwritten & joined for node in nodes) and not any(
        seen[node].overwritten & copied for node in between
    )


def _replace(chain: _Chain, graph: fx.Graph, seen: dict[fx.Node, Observation]) -> None:
    channels = seen[chain.nodes[-1]].shapes[0][1]
    first, *rest = chain.pieces[0]
    with graph.inserting_before(chain.nodes[0]):
        stack = graph.call_function(start_stack, (channels, first))
    seen[stack] = Observation()
    for node, pieces in zip(chain.nodes, [rest, *chain.pieces[1:]], strict=True):
        with graph.inserting_before(node):
            joined = graph.call_function(extend_stack, (stack, *pieces))
        seen[joined] = seen[node]
        node.replace_all_uses_with(joined)
    for node in reversed(chain.nodes):
        graph.erase_node(node)
