"""Giving a module of a network another forward."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Mapping
from typing import Any

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


def rewrite(module: nn.Module, graph: fx.Graph, original_names: Mapping[str, str]) -> None:
    """Replace the forward of ``module`` by ``graph``, whose targets are named within it.

    Raises:
        TypeError: Its class cannot be derived from.
    """
    code = graph.python_code("self")
    # Registered with linecache, so that tracebacks show the lines.
    file_name = f"<fused {type(module).__name__} {next(_numbers)}>"
    linecache.cache[file_name] = len(code.src), None, code.src.splitlines(True), file_name
    namespace = dict(code.globals)
    exec(compile(code.src, file_name, "exec"), namespace)
    base = type(module)
    attributes = {"forward": namespace["forward"], "__module__": base.__module__}
    module.__class__ = type(base.__name__, (FusedModule, base), attributes)
    vars(module)["original_names"] = dict(original_names)


def restore(module: nn.Module) -> None:
    """Undo ``rewrite``."""
    assert isinstance(module, FusedModule)
    module.__class__ = type(module).__mro__[2]
    del vars(module)["original_names"]
