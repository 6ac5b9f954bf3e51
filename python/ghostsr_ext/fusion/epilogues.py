"""Finding what follows convolutions in a graph, and folding it into them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from ghostsr_ext.activations import Activation
from ghostsr_ext.fusion.observation import Observation
from ghostsr_ext.fusion.proxies import add_in_place, multiply_in_place, subtract_in_place
from ghostsr_ext.models.layers import has_hooks

_ADDITIONS = (operator.add, add_in_place, torch.add, "add", "add_")
_SUBTRACTIONS = (operator.sub, subtract_in_place, torch.sub, torch.subtract, "sub", "sub_")
_PRODUCTS = (operator.mul, multiply_in_place, torch.mul, torch.multiply, "mul", "mul_")
_RELUS = (functional.relu, torch.relu, torch.relu_, functional.relu_, "relu", "relu_")
_LEAKY_RELUS = (functional.leaky_relu, functional.leaky_relu_)
_PRELUS = (functional.prelu, torch.prelu, "prelu")


@dataclass(frozen=True)
class Ending:
    """An activation.

    Attributes:
        activation: As in ``FusedConv2d``.
        negative_slope: As in ``FusedConv2d``.
        weight: Name of the parameter of "prelu".
    """

    activation: Activation = "none"
    negative_slope: float = 0.01
    weight: str | None = None


@dataclass(frozen=True)
class Epilogue:
    """What follows one call of a convolution.

    Attributes:
        call: The call.
        chain: The nodes after it that are to be folded, in their order.
        adding: The one of them that adds the residual, or None.
        scale: Factor of the convolution's output before that.
        ending: The activation.
        without_ending: The same without the activation; None where there is none or nothing else.
    """

    call: fx.Node
    chain: tuple[fx.Node, ...]
    adding: fx.Node | None = None
    scale: float = 1.0
    ending: Ending = Ending()
    without_ending: Epilogue | None = None

    @property
    def residual(self) -> fx.Node | None:
        """The map that is added, as the graph has it now."""
        if self.adding is None:
            return None
        before = (self.call, *self.chain)[self.chain.index(self.adding)]
        return next(node for node in self.adding.all_input_nodes if node is not before)


class EpilogueFinder:
    """Finds what follows the convolutions of a graph and can be computed with them.

    No node is given to two convolutions.

    Args:
        graph: The graph, which must not change in between.
        modules: Its modules by the names that it uses.
        seen: What its nodes do.
    """

    def __init__(
        self,
        graph: fx.Graph,
        modules: Mapping[str, nn.Module],
        seen: Mapping[fx.Node, Observation],
    ) -> None:
        self._nodes = list(graph.nodes)
        self._place = {node: number for number, node in enumerate(self._nodes)}
        self._modules = modules
        self._seen = seen
        self._taken: set[fx.Node] = set()
        self._writers = [node for node in self._nodes if seen[node].overwritten]

    def take(self, epilogues: Sequence[Epilogue]) -> None:
        """Keep the nodes of ``epilogues`` from being found again."""
        self._taken.update(node for epilogue in epilogues for node in epilogue.chain)

    def find(self, call: fx.Node) -> Epilogue:
        """Return what follows one call of a layer, which has one input."""
        found = Epilogue(call, ())
        while (node := _only_user(last := (call, *found.chain)[-1])) not in (None, *self._taken):
            assert node is not None
            chain = (*found.chain, node)
            ending = _ending(node, last, self._modules)
            factor = None if found.adding else _factor(node, last)
            share = None if found.adding else _addition(node, last)
            if ending is not None:
                without = found if found.chain else None
                longer = replace(found, chain=chain, ending=ending, without_ending=without)
            elif factor is not None:
                longer = replace(found, chain=chain, scale=found.scale * factor)
            elif share is not None:
                longer = replace(found, chain=chain, adding=node, scale=found.scale * share)
            else:
                break
            if not self._is_safe(longer):
                break
            found = longer
            if ending is not None:
                break
        return found

    def _is_safe(self, epilogue: Epilogue) -> bool:
        """Whether all may be computed where the last node of the chain is."""
        seen, place = self._seen, self._place
        call, chain, adding = epilogue.call, epilogue.chain, epilogue.adding
        output = seen[call]
        if not output.shapes or any(
            (seen[node].shapes, seen[node].kind) != (output.shapes, output.kind) for node in chain
        ):
            return False
        (given,) = call.all_input_nodes
        read = {given: place[call]}
        own = output.storages
        residual = epilogue.residual
        if residual is not None and adding is not None:
            found = seen[residual]
            if (found.shapes, found.kind) != (output.shapes, output.kind):
                return False
            read[residual] = min(place[adding], read.get(residual, place[adding]))
            writes = bool(seen[adding].overwritten & found.storages)
            if writes and not self._is_private(residual, adding):
                return False
            own = own | found.storages
        if any(seen[node].overwritten - own for node in chain):
            return False
        # What is read later than it was must still be what it was.
        end = place[chain[-1]]
        return not any(
            since < place[node] < end
            and node not in chain
            and seen[node].overwritten & seen[value].storages
            for value, since in read.items()
            for node in self._writers
        )

    def _is_private(self, residual: fx.Node, adding: fx.Node) -> bool:
        """Whether nobody but ``adding`` sees that it overwrites ``residual``."""
        memory = self._seen[residual].storages
        for node, number in self._place.items():
            if not self._seen[node].storages & memory:
                continue
            if node.op in ("placeholder", "get_attr"):
                return False
            late = any(self._place[user] > self._place[adding] for user in node.users)
            if number < self._place[adding] and late:
                return False
        return True


def fold(epilogue: Epilogue, seen: dict[fx.Node, Observation]) -> None:
    """Let the convolution's call do what the nodes after it did."""
    if not epilogue.chain:
        return
    call, last = epilogue.call, epilogue.chain[-1]
    residual = epilogue.residual
    arguments = [call.args[0]] if residual is None else [call.args[0], residual]
    graph = call.graph
    assert isinstance(call.target, str)
    with graph.inserting_before(last):
        fused = graph.call_module(call.target, tuple(arguments))
    seen[fused] = replace(seen[last], storages=seen[call].storages, overwritten=frozenset())
    last.replace_all_uses_with(fused)
    for node in (*reversed(epilogue.chain), call):
        parameters = [other for other in node.all_input_nodes if other.op == "get_attr"]
        graph.erase_node(node)
        for parameter in parameters:
            if not parameter.users:
                graph.erase_node(parameter)


def reconciled(epilogues: Sequence[Epilogue]) -> list[Epilogue]:
    """Return what of the epilogues of its calls one layer can have at all of them."""
    if len({epilogue.ending for epilogue in epilogues}) > 1:
        epilogues = [
            epilogue
            if epilogue.ending == Ending()
            else epilogue.without_ending or Epilogue(epilogue.call, ())
            for epilogue in epilogues
        ]
    if len({epilogue.scale for epilogue in epilogues}) > 1:
        return [Epilogue(epilogue.call, ()) for epilogue in epilogues]
    return list(epilogues)


def _only_user(node: fx.Node) -> fx.Node | None:
    """Return the node that reads ``node``, if it is one and reads it once."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    reads = 0

    def count(other: fx.Node) -> fx.Node:
        nonlocal reads
        reads += other is node
        return other

    fx.map_arg((user.args, user.kwargs), count)
    return user if reads == 1 and user.op != "output" else None


def _is_call(node: fx.Node, targets: tuple[Any, ...]) -> bool:
    return node.op in ("call_function", "call_method") and node.target in targets


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _factor(node: fx.Node, current: fx.Node) -> float | None:
    if not _is_call(node, _PRODUCTS) or node.kwargs or len(node.args) != 2:
        return None
    other: Any = node.args[1] if node.args[0] is current else node.args[0]
    return float(other) if _is_number(other) else None


def _addition(node: fx.Node, current: fx.Node) -> float | None:
    """Return the factor of ``current`` in a sum with another map, or None for other nodes."""
    sign = 1.0 if _is_call(node, _ADDITIONS) else -1.0
    if sign < 0 and not _is_call(node, _SUBTRACTIONS):
        return None
    if len(node.args) != 2 or set(node.kwargs) - {"alpha"}:
        return None
    alpha: Any = node.kwargs.get("alpha", 1)
    first, second = node.args
    if not (_is_number(alpha) and isinstance(first, fx.Node) and isinstance(second, fx.Node)):
        return None
    factor = sign * float(alpha)
    if second is current:
        return factor
    return 1.0 if factor == 1 else None


def _ending(node: fx.Node, current: fx.Node, modules: Mapping[str, nn.Module]) -> Ending | None:
    """Return the activation that a node applies to ``current``."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        if node.kwargs or node.args != (current,) or has_hooks(module):
            return None
        if type(module) is nn.ReLU:
            return Ending("relu")
        if type(module) is nn.LeakyReLU:
            return Ending("leaky_relu", float(module.negative_slope))
        if type(module) is nn.PReLU:
            return Ending("prelu", weight=f"{node.target}.weight")
        return None
    if not node.args or node.args[0] is not current:
        return None
    rest = node.args[1:]
    if _is_call(node, _RELUS):
        return Ending("relu")
    if _is_call(node, _LEAKY_RELUS):
        slope: Any = rest[0] if rest else node.kwargs.get("negative_slope", 0.01)
        return Ending("leaky_relu", float(slope)) if _is_number(slope) else None
    if _is_call(node, _PRELUS):
        weight = rest[0] if rest else node.kwargs.get("weight")
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            return Ending("prelu", weight=str(weight.target))
    return None
