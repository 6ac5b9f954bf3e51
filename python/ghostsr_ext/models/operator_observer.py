"""Seeing every operator that torch runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class OperatorObserver(TorchDispatchMode):
    """While it is entered, ``observe`` is called after each operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def observe(
        self,
        operator: Callable[..., Any],
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        result: Any,
    ) -> None:
        """Take note of one call of an operator, its arguments and what it gave."""
        raise NotImplementedError

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler for this class, which takes a second.
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        result = func(*args, **named)
        self.observe(func, args, named, result)
        return result
