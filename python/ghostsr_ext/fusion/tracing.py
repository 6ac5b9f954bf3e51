"""The graph of a module, with what cannot be traced in it left as calls."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.fusion.proxies import InPlaceProxy
from ghostsr_ext.fusion.rewriting import FusedModule
from ghostsr_ext.models.layers import has_hooks
from ghostsr_ext.nn import FusedConv2d, GhostConv2d


class NotTraceableError(GhostsrError):
    """A module whose forward is no fixed sequence of operators; the message says why."""


def shadow(model: nn.Module) -> nn.Module:
    """Return a copy of the modules of a network that shares its tensors.

    Tracing runs the network's own code, which may store what it finds on its modules.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        attributes = [value for value in vars(module).values() if isinstance(value, Tensor)]
        for tensor in (*module.parameters(False), *module.buffers(False), *attributes):
            memo[id(tensor)] = tensor
    return copy.deepcopy(model, memo)


def trace_module(module: nn.Module, arguments: Sequence[str]) -> tuple[fx.Graph, dict[str, str]]:
    """Trace a module of a ``shadow``.

    Args:
        module: The module.
        arguments: Names of the arguments that its callers give; the others have their defaults.

    Returns:
        The graph, and the names of the modules in it that are called because they cannot be traced,
        with the reasons.

    Raises:
        NotTraceableError: Its own forward cannot be traced, or depends on the mode.
    """
    found = []
    for training in (True, False):
        module.train(training)
        tracer = _Tracer(arguments)
        with torch.set_grad_enabled(training):
            try:
                graph = tracer.trace(module)
            # Whatever the network's own code stumbles on when it gets a proxy for a tensor.
            except Exception as error:
                raise NotTraceableError(_first_line(error)) from error
        _check_unchanged(module)
        found.append((graph, tracer.opaque))
    graph, opaque = found[1]
    if _source(found[0][0]) != _source(graph):
        raise NotTraceableError("it computes something else in training mode")
    return graph, opaque


class _Tracer(fx.Tracer):
    """Traces through modules, and calls those that it cannot trace through.

    Attributes:
        opaque: The reason for each module that is called instead.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(autowrap_functions=_functions_of_einops())
        self.opaque: dict[str, str] = {}
        self.proxy_buffer_attributes = True
        self._arguments = arguments

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            isinstance(m, FusedConv2d | GhostConv2d | FusedModule)
            or has_hooks(m)
            or parametrize.is_parametrized(m)
            or super().is_leaf_module(m, module_qualified_name)
        )

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return InPlaceProxy(node, self)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self._arguments]

        def run(*given: Any) -> Any:
            return root_fn(self.root, **dict(zip(self._arguments, given, strict=True)))

        # Strings in this file; torch takes what it finds for a type.
        run.__annotations__.clear()
        return run, proxies

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        name = self.path_of_module(m)
        if not self.is_leaf_module(m, name):
            last = next(iter(reversed(self.graph.nodes)), None)
            try:
                if "training" in _names_used(m):
                    raise NotTraceableError("it may compute something else in training mode")
                return forward(*args, **kwargs)
            except Exception as error:
                self.opaque.setdefault(name, _first_line(error))
                for node in reversed(self.graph.nodes):
                    if node is last:
                        break
                    self.graph.erase_node(node)
        return self.create_proxy("call_module", name, args, kwargs)

    def create_arg(self, a: Any) -> Any:
        if (
            isinstance(a, Tensor)
            and not isinstance(a, nn.Parameter)
            and a not in self.tensor_attrs
            and not any(a is buffer for buffer in self.root.buffers())
        ):
            raise NotTraceableError("it makes a constant that is no buffer")
        return super().create_arg(a)


def _functions_of_einops() -> tuple[Callable[..., Any], ...]:
    """Return what einops, which knows no proxies, offers for tensors, if the network uses it."""
    einops = sys.modules.get("einops")
    names = ("rearrange", "reduce", "repeat", "einsum", "pack", "unpack")
    return tuple(getattr(einops, name) for name in names if hasattr(einops, name))


def _names_used(module: nn.Module) -> tuple[str, ...]:
    code = getattr(type(module).forward, "__code__", None)
    names: tuple[str, ...] = getattr(code, "co_names", ())
    return names


def _check_unchanged(module: nn.Module) -> None:
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, fx.Proxy):
                raise NotTraceableError(f"its forward stores {name}")


def _source(graph: fx.Graph) -> str:
    return graph.python_code("self").src


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
