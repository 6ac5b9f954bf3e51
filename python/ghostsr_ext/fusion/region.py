"""One module of a network that was traced, and what is done to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import fx, nn

from ghostsr_ext.fusion.epilogues import (
    Ending,
    Epilogue,
    EpilogueFinder,
    fold,
    reconciled,
)
from ghostsr_ext.fusion.examples import copied
from ghostsr_ext.fusion.layers import FusedLayer, channels_last_weight
from ghostsr_ext.fusion.layout import mark_layout
from ghostsr_ext.fusion.observation import Observation, observe
from ghostsr_ext.fusion.recording import Sample, Uses
from ghostsr_ext.fusion.rewriting import rewrite
from ghostsr_ext.fusion.stacks import stack_concatenations
from ghostsr_ext.models.layers import has_hooks


class Region:
    """A module whose forward is to be replaced by its traced graph.

    Args:
        name: Name of the module in its network.
        module: The module.
        arguments: Names of the arguments that its callers give.
        graph: What it does.
        opaque: Names within it of modules that the graph calls without looking into them, with the
            reasons.
        uses: How the network uses its modules.
        owners: The modules that have each parameter of the network, by its ``id``.

    Attributes:
        activations: Layers that got their activation.
        residuals: Layers that got their residual.
        stacked: Concatenations that became part of a stack.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        arguments: tuple[str, ...],
        graph: fx.Graph,
        opaque: Mapping[str, str],
        uses: Mapping[int, Uses],
        owners: Mapping[int, int],
    ) -> None:
        self.name = name
        self.module = module
        self.opaque = opaque
        self.activations = self.residuals = self.stacked = 0
        self._arguments = arguments
        self._graph = graph
        self._uses = uses
        self._owners = owners
        self._modules = dict(module.named_modules(remove_duplicate=False))
        self._moved: dict[str, str] = {}
        self._undo: list[Callable[[], None]] = []

    def fuse(self, samples: Iterable[Sample]) -> None:
        """Rewrite the module, with what follows its convolutions folded into them.

        Args:
            samples: Calls of it, to see what its operators do.
        """
        graph, module = self._graph, self.module
        seen = observe(module, graph, [self._inputs(sample) for sample in samples])
        for layer, epilogues in self._epilogues(seen):
            ending, scale = epilogues[0].ending, epilogues[0].scale
            if ending.weight is not None:
                self._move_parameter(layer, ending.weight)
            self._set_epilogue(layer, ending, scale)
            self.activations += ending.activation != "none"
            self.residuals += any(epilogue.adding is not None for epilogue in epilogues)
            for epilogue in epilogues:
                fold(epilogue, seen)
        self.stacked = stack_concatenations(graph, self._modules, seen)
        _reshape_views(graph, seen)
        _convert_layout(graph, seen)
        for part in module.modules():
            if isinstance(part, FusedLayer):
                self._undo.append(channels_last_weight(part))
        graph.lint()
        self._undo.append(rewrite(module, graph, self._moved))

    def undo(self) -> None:
        """Put everything back."""
        while self._undo:
            self._undo.pop()()
        self.activations = self.residuals = self.stacked = 0

    def _inputs(self, sample: Sample) -> list[Any]:
        call = sample.call
        given = inspect.signature(self.module.forward).bind(*call.positional, **call.named)
        return [copied(given.arguments[name]) for name in self._arguments]

    def _epilogues(
        self, seen: Mapping[fx.Node, Observation]
    ) -> list[tuple[FusedLayer, list[Epilogue]]]:
        """Return the layers that get an epilogue, and that of each of their calls."""
        calls: dict[nn.Module, list[fx.Node]] = {}
        for node in self._graph.nodes:
            if node.op == "call_module":
                calls.setdefault(self._modules[node.target], []).append(node)
        finder = EpilogueFinder(self._graph, self._modules, seen)
        found = []
        for layer, nodes in calls.items():
            if not isinstance(layer, FusedLayer) or not self._is_free(layer, nodes):
                continue
            epilogues = []
            for node in nodes:
                epilogue = finder.find(node)
                weight = epilogue.ending.weight
                if weight is not None and not self._may_move(calls, layer, weight):
                    epilogue = epilogue.without_ending or Epilogue(node, ())
                epilogues.append(epilogue)
            epilogues = reconciled(epilogues)
            finder.take(epilogues)
            if any(epilogue.chain for epilogue in epilogues):
                found.append((layer, epilogues))
        return found

    def _is_free(self, layer: FusedLayer, nodes: Sequence[fx.Node]) -> bool:
        """Whether a layer has no epilogue yet, and none but ``nodes`` call it."""
        return (
            not has_hooks(layer)
            and layer.activation == "none"
            and layer.residual_scale == 1
            and all(len(node.args) == 1 and not node.kwargs for node in nodes)
            and self._count(layer) == self._count(self.module) * len(nodes)
        )

    def _count(self, module: nn.Module) -> int:
        return len(self._uses[id(module)].callers)

    def _may_move(
        self, calls: Mapping[nn.Module, Sequence[fx.Node]], layer: FusedLayer, weight: str
    ) -> bool:
        """Whether the parameter of a PReLU is used behind one call of ``layer`` alone."""
        owner_name, _, key = weight.rpartition(".")
        owner = self._modules[owner_name]
        parameter = owner._parameters.get(key)
        if isinstance(owner, nn.PReLU):
            uses = len(calls.get(owner, ()))
            is_private = self._count(owner) == self._count(self.module)
        else:
            reads = [n for n in self._graph.nodes if n.op == "get_attr" and n.target == weight]
            uses = sum(len(node.users) for node in reads)
            is_private = True
        return (
            parameter is not None
            and is_private
            and uses == len(calls[layer]) == self._owners[id(parameter)] == 1
            and parameter.dtype == layer.weight.dtype
            and parameter.numel() in (1, layer.out_channels)
        )

    def _set_epilogue(self, layer: FusedLayer, ending: Ending, scale: float) -> None:
        before = layer.activation, layer.negative_slope, layer.residual_scale

        def undo() -> None:
            layer.activation, layer.negative_slope, layer.residual_scale = before

        self._undo.append(undo)
        layer.activation = ending.activation
        layer.negative_slope = ending.negative_slope
        layer.residual_scale = scale

    def _move_parameter(self, layer: FusedLayer, weight: str) -> None:
        owner_name, _, key = weight.rpartition(".")
        parameters = self._modules[owner_name]._parameters
        name = next(name for name, module in self._modules.items() if module is layer)
        self._moved[f"{name}.prelu_weight"] = weight

        def undo() -> None:
            parameters[key] = layer._parameters["prelu_weight"]
            layer._parameters["prelu_weight"] = None

        self._undo.append(undo)
        layer._parameters["prelu_weight"] = parameters.pop(key)


def _reshape_views(graph: fx.Graph, seen: Mapping[fx.Node, Observation]) -> None:
    """Let views be taken of maps in any layout, where nobody writes through them."""
    for node in graph.nodes:
        if node.op == "call_method" and node.target == "view" and node in seen:
            memory = seen[node].storages
            if not any(entry.overwritten & memory for entry in seen.values()):
                node.target = "reshape"


def _convert_layout(graph: fx.Graph, seen: Mapping[fx.Node, Observation]) -> None:
    """Convert maps where they enter the graph, and back where they leave it, if that is safe."""
    given = [node for node in graph.nodes if node.op == "placeholder"]
    maps = [node for node in given if any(len(shape) == 4 for shape in seen[node].shapes)]
    written = frozenset[int]().union(*(entry.overwritten for entry in seen.values()))
    # The caller shall see what is written to its own maps.
    if not maps or any(seen[node].storages & written for node in given):
        return
    mark_layout(graph, maps)
