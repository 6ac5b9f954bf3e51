"""Giving a module of a network another forward."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Mapping
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
    _code: ClassVar[_Code]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle by the module's own class and the new forward: such a class has no name."""
        reduced = super().__reduce_ex__(max(protocol, 2))
        assert isinstance(reduced, tuple)
        _, (_, *arguments), *state = reduced
        return _restored, (type(self).__mro__[2], self._code, *arguments), *state

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


class _Code(NamedTuple):
    """A forward as text, and what its names stand for; modules by their own names."""

    source: str
    names: dict[str, Any]
    modules: dict[str, str]


def rewrite(module: nn.Module, graph: fx.Graph, original_names: Mapping[str, str]) -> None:
    """Replace the forward of ``module`` by ``graph``, whose targets are named within it.

    Raises:
        TypeError: Its class cannot be derived from.
    """
    code = graph.python_code("self")
    values = code.globals.items()
    module.__class__ = _subclass(
        type(module),
        _Code(
            code.src,
            {name: value for name, value in values if not isinstance(value, ModuleType)},
            {name: value.__name__ for name, value in values if isinstance(value, ModuleType)},
        ),
    )
    vars(module)["original_names"] = dict(original_names)


def _subclass(base: type[nn.Module], code: _Code) -> type[FusedModule]:
    # Registered with linecache, so that tracebacks show the lines.
    file_name = f"<fused {base.__name__} {next(_numbers)}>"
    linecache.cache[file_name] = len(code.source), None, code.source.splitlines(True), file_name
    namespace = code.names | {name: import_module(path) for name, path in code.modules.items()}
    exec(compile(code.source, file_name, "exec"), namespace)
    attributes = {"forward": namespace["forward"], "__module__": base.__module__, "_code": code}
    return type(base.__name__, (FusedModule, base), attributes)


def _restored(base: type[nn.Module], code: _Code, *arguments: Any) -> nn.Module:
    """Make what ``FusedModule.__reduce_ex__`` took apart; its state is put back afterwards."""
    cls = _subclass(base, code)
    return cls.__new__(cls, *arguments)


def restore(module: nn.Module) -> None:
    """Undo ``rewrite``."""
    assert isinstance(module, FusedModule)
    module.__class__ = type(module).__mro__[2]
    del vars(module)["original_names"]
