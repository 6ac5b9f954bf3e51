"""Giving a module of a network another forward."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

from torch import fx, nn

_numbers = itertools.count()


class FusedModule(nn.Module):
    """What the classes of rewritten modules have in common.

    Such a class derives from the module's own, so that everything but ``forward`` is as it was. The
    keys of the state dict are the original's, too.

    Attributes:
        original_names: For each parameter that has moved, its name within the module, and where it
            was before.
    """

    original_names: dict[str, str]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state dict, under the original's keys."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        for name, original in self.original_names.items():
            if prefix + name in state:
                state[prefix + original] = state.pop(prefix + name)
        return state

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name, original in self.original_names.items():
            if prefix + original in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + original)
        super()._load_from_state_dict(state_dict, prefix, *args)


def rewrite(
    module: nn.Module, graph: fx.Graph, original_names: Mapping[str, str]
) -> Callable[[], None]:
    """Replace the forward of ``module`` by ``graph``, whose targets are named within it.

    Returns:
        What undoes that.

    Raises:
        TypeError: Its class cannot be derived from.
    """
    before = type(module)
    restore_graph = None
    if isinstance(module, fx.GraphModule):
        restore_graph = set_graph(module, graph)
        _become_fused_graph(module, _class_of(module), original_names)
    else:
        module.__class__ = _subclass(before, _code_of(graph))
        vars(module)["original_names"] = dict(original_names)

    def undo() -> None:
        module.__class__ = before
        del vars(module)["original_names"]
        if restore_graph is not None:
            restore_graph()

    return undo


class _Code(NamedTuple):
    """A forward as text, and what its names stand for; modules by their own names."""

    source: str
    names: dict[str, Any]
    modules: dict[str, str]


class _FusedByCode(FusedModule):
    """A rewritten module with a new forward."""

    _code: ClassVar[_Code]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle by the module's own class and the new forward: such a class has no name."""
        reduced = super().__reduce_ex__(max(protocol, 2))
        assert isinstance(reduced, tuple)
        _, (_, *arguments), *state = reduced
        return _restored, (type(self).__bases__[1], self._code, *arguments), *state


def _code_of(graph: fx.Graph) -> _Code:
    code = graph.python_code("self")
    values = code.globals.items()
    return _Code(
        code.src,
        {name: value for name, value in values if not isinstance(value, ModuleType)},
        {name: value.__name__ for name, value in values if isinstance(value, ModuleType)},
    )


def _subclass(base: type[nn.Module], code: _Code) -> type[FusedModule]:
    # Registered with linecache, so that tracebacks show the lines.
    file_name = f"<fused {base.__name__} {next(_numbers)}>"
    linecache.cache[file_name] = len(code.source), None, code.source.splitlines(True), file_name
    namespace = code.names | {name: import_module(path) for name, path in code.modules.items()}
    exec(compile(code.source, file_name, "exec"), namespace)
    attributes = {"forward": namespace["forward"], "__module__": base.__module__, "_code": code}
    return type(base.__name__, (_FusedByCode, base), attributes)


def _restored(base: type[nn.Module], code: _Code, *arguments: Any) -> nn.Module:
    """Make what ``_FusedByCode.__reduce_ex__`` took apart; its state is put back afterwards."""
    cls = _subclass(base, code)
    return cls.__new__(cls, *arguments)


class _FusedGraphModule(FusedModule):
    """A rewritten ``GraphModule``: torch's own class generates its forward from its graph."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        copied: nn.Module = super().__deepcopy__(memo)  # type: ignore[misc]
        # Torch drops all attributes that the graph does not name.
        vars(copied).update(
            {name: value for name, value in vars(self).items() if name in _KEPT_ATTRIBUTES}
        )
        return copied

    def __copy__(self) -> nn.Module:
        copied: fx.GraphModule = super().__copy__()  # type: ignore[misc]
        _become_fused_graph(copied, _class_of(self), self.original_names)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        reduced = super().__reduce__()
        return _restored_graph, (_class_of(self), self.original_names, *reduced)


_KEPT_ATTRIBUTES = ("original_names", "fusion_report")


def set_graph(module: fx.GraphModule, graph: fx.Graph) -> Callable[[], None]:
    """Give a ``GraphModule`` another graph; returns what undoes that."""
    before = module.graph
    # A pickled module is traced anew, by this class.
    graph._tracer_cls = before._tracer_cls
    module.graph = graph

    def undo() -> None:
        module.graph = before

    return undo


def _class_of(module: nn.Module) -> type[nn.Module]:
    """Return the class of a ``GraphModule``, below those that are made for one object alone."""
    classes: tuple[type[Any], ...] = type(module).__mro__
    return next(
        cls
        for cls in classes
        if not issubclass(cls, FusedModule) and cls.__qualname__.split(".")[-1] != "GraphModuleImpl"
    )


def _become_fused_graph(
    module: fx.GraphModule, base: type[nn.Module], original_names: Mapping[str, str]
) -> None:
    name = type(module).__name__
    cls: Any = type(base.__name__, (_FusedGraphModule, base), {"__module__": base.__module__})
    # Torch makes a class for each object, which must have no other such class among its bases.
    module.__class__ = type(cls.__new__(cls))
    type(module).__name__ = name
    vars(module)["original_names"] = dict(original_names)
    module.recompile()


def _restored_graph(
    base: type[nn.Module], original_names: dict[str, str], build: Any, arguments: tuple[Any, ...]
) -> nn.Module:
    """Make what ``_FusedGraphModule.__reduce__`` took apart."""
    module: fx.GraphModule = build(*arguments)
    _become_fused_graph(module, base, original_names)
    return module
