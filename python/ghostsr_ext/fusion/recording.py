"""Which modules of a network call one another, and with what."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ghostsr_ext.fusion.examples import Call, copied


@dataclass
class Uses:
    """How one run calls one module.

    Attributes:
        callers: For each call, the modules that were running, outermost first.
        arguments: For each call, the names of the arguments that were given; None for arguments
            that have no names.
    """

    callers: list[tuple[int, ...]] = field(default_factory=list)
    arguments: list[tuple[str, ...] | None] = field(default_factory=list)

    def are_within(self, module: nn.Module) -> bool:
        """Whether ``module`` is running at each call."""
        return all(id(module) in callers for callers in self.callers)


@dataclass(frozen=True)
class Sample:
    """One call of a module.

    Attributes:
        call: The arguments.
        output: What it returned.
        arguments: What it has made of the arguments.
    """

    call: Call
    output: Any
    arguments: Any


def record_uses(model: nn.Module, calls: Iterable[Call]) -> tuple[dict[int, Uses], list[Any]]:
    """Run ``model``; return the uses of its modules, by their ``id``, and its outputs."""
    uses: dict[int, Uses] = {id(module): Uses() for module in model.modules()}
    running: list[int] = []

    def enter(module: nn.Module, positional: Any, named: Any) -> None:
        entry = uses[id(module)]
        entry.callers.append(tuple(running))
        entry.arguments.append(_argument_names(module, positional, named))
        running.append(id(module))

    def leave(_module: nn.Module, _positional: Any, _output: Any) -> None:
        running.pop()

    with ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(
                _removed(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
            )
            stack.enter_context(_removed(module.register_forward_hook(leave, always_call=True)))
        outputs = [call.run(model) for call in calls]
    return uses, outputs


def record_samples(model: nn.Module, modules: Iterable[nn.Module], call: Call) -> dict[int, Sample]:
    """Run ``model`` and return the first call of each of ``modules``, by their ``id``."""
    inputs: dict[int, Call] = {}
    samples: dict[int, Sample] = {}

    def enter(module: nn.Module, positional: Any, named: Any) -> None:
        inputs.setdefault(id(module), Call(copied(positional), copied(named)))

    def leave(module: nn.Module, positional: Any, named: Any, output: Any) -> None:
        if id(module) not in samples:
            arguments = copied((positional, named))
            samples[id(module)] = Sample(inputs[id(module)], copied(output), arguments)

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_removed(module.register_forward_pre_hook(enter, with_kwargs=True)))
            handle = module.register_forward_hook(leave, prepend=True, with_kwargs=True)
            stack.enter_context(_removed(handle))
        call.run(model)
    return samples


def _argument_names(module: nn.Module, positional: Any, named: Any) -> tuple[str, ...] | None:
    signature = inspect.signature(module.forward)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return None
    try:
        return tuple(signature.bind(*positional, **named).arguments)
    except TypeError:
        return None


@contextmanager
def _removed(handle: Any) -> Any:
    try:
        yield
    finally:
        handle.remove()
