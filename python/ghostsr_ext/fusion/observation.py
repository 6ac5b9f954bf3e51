"""What each operator of a traced module really does to its tensors."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass
class Observation:
    """What one node of a graph did when the graph ran.

    Attributes:
        shapes: Shapes of its output in each run; empty if that is no tensor.
        kind: Type and device of its output.
        storages: Numbers of the memory that its output lies in, in the first run.
        overwritten: Numbers of the memory that it wrote to, of what it was given.
    """

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    kind: tuple[torch.dtype, torch.device] | None = None
    storages: frozenset[int] = frozenset()
    overwritten: frozenset[int] = frozenset()


def observe(
    module: nn.Module, graph: fx.Graph, calls: Sequence[Sequence[Any]]
) -> dict[fx.Node, Observation]:
    """Run ``graph``, whose targets are named within ``module``, once for each list of inputs."""
    found: dict[fx.Node, Observation] = {node: Observation() for node in graph.nodes}
    for number, inputs in enumerate(calls):
        _Observer(module, graph, found, is_first=not number).run(*inputs)
    return found


class _Observer(fx.Interpreter):
    def __init__(
        self,
        module: nn.Module,
        graph: fx.Graph,
        found: dict[fx.Node, Observation],
        *,
        is_first: bool,
    ) -> None:
        super().__init__(module, graph=graph)
        self._found = found
        self._is_first = is_first
        self._numbers: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = (
            weakref.WeakKeyDictionary()
        )
        self._count = 0

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = [(tensor, tensor._version) for tensor in _tensors((args, kwargs))]
        result = super().run_node(n)
        entry = self._found[n]
        if isinstance(result, Tensor):
            entry.shapes.append(tuple(result.shape))
            entry.kind = (result.dtype, result.device)
        if self._is_first:
            entry.storages = frozenset(self._number(tensor) for tensor in _tensors(result))
            entry.overwritten = frozenset(
                self._number(tensor) for tensor, version in given if tensor._version != version
            )
        return result

    def _number(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage not in self._numbers:
            self._count += 1
            self._numbers[storage] = self._count
        return self._numbers[storage]


def _tensors(values: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
