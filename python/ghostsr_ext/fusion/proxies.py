"""Proxies that record what is written in place, which torch's own take for a new value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import fx

Function = TypeVar("Function", bound=Callable[..., Any])


def recorded(function: Function) -> Function:
    """Let a function be recorded where it is traced, whoever traces, rather than what is in it."""

    @functools.wraps(function)
    def call(*values: Any) -> Any:
        for value in values:
            if isinstance(value, fx.Proxy):
                return value.tracer.create_proxy("call_function", call, values, {})
        return function(*values)

    return call  # type: ignore[return-value]


@recorded
def add_in_place(left: Any, right: Any) -> Any:
    """Return ``left += right``."""
    left += right
    return left


@recorded
def subtract_in_place(left: Any, right: Any) -> Any:
    """Return ``left -= right``."""
    left -= right
    return left


@recorded
def multiply_in_place(left: Any, right: Any) -> Any:
    """Return ``left *= right``."""
    left *= right
    return left


@recorded
def divide_in_place(left: Any, right: Any) -> Any:
    """Return ``left /= right``."""
    left /= right
    return left


@recorded
def raise_in_place(left: Any, right: Any) -> Any:
    """Return ``left **= right``."""
    left **= right
    return left


@recorded
def store(values: Any, place: Any, value: Any) -> None:
    """Do ``values[place] = value``."""
    values[place] = value


class InPlaceProxy(fx.Proxy):
    """A value in a graph.

    The functions above are recorded rather than those of ``operator``: for the latter, torch
    generates statements that change a number where another name still stands for it.
    """

    def __iadd__(self, other: Any) -> Any:
        return self._record(add_in_place, other)

    def __isub__(self, other: Any) -> Any:
        return self._record(subtract_in_place, other)

    def __imul__(self, other: Any) -> Any:
        return self._record(multiply_in_place, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._record(divide_in_place, other)

    def __ipow__(self, other: Any) -> Any:
        return self._record(raise_in_place, other)

    def __setitem__(self, place: Any, value: Any) -> None:
        self._record(store, place, value)

    def _record(self, function: Any, *arguments: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, *arguments), {})
