"""Finding the networks in what a training program has saved.

Programs save a state dict bare, or under a name beside an optimiser's state, its averaged twin or
an opponent's, with prefixes that wrappers of modules leave on every key.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from ghostsr_ext.text import printable

# Deeper and more than any program saves; without a limit a small file could keep a reader busy.
_DEEPEST = 8
_MOST_MAPPINGS = 1024
_MOST_NAMED = 5

_BOOKKEEPING = ("n_averaged", "total_ops", "total_params")
"""Last parts of keys that torch's averaging and counters of operations leave in state dicts."""

_AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?|shadow)(_|\d*$)")
_OPPONENT = re.compile(r"(^|_)(d|net_?d|disc|discriminator|critic)(_|\d*$)")
_WRAPPERS = (
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "_orig_mod",
    "generator",
    "net_g",
    "netg",
    "g",
)


@dataclass(frozen=True)
class Candidate:
    """Tensors that may be those of one network.

    Attributes:
        tensors: The tensors by name.
        notes: How they were found, one sentence each.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    path: tuple[str, ...]
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]

    @property
    def has_filters(self) -> bool:
        """Whether there is more than counters and the like."""
        return any(tensor.dim() > 1 for tensor in self.tensors.values())

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Smaller is better: no opponent, averaged, under a name that programs give to networks."""
        names = [name.lower() for name in self.path]
        averaged = any(_AVERAGED.search(name) for name in names)
        averaged = averaged or any(key.endswith("n_averaged") for key in self.left_out)
        known = all(name in _WRAPPERS or _AVERAGED.search(name) for name in names)
        return any(_OPPONENT.search(name) for name in names), not averaged, not known

    def __str__(self) -> str:
        return repr(printable(".".join(self.path))) if self.path else "the file itself"


def find_candidates(content: Mapping[Any, Any]) -> tuple[Candidate, ...]:
    """Return what may be networks in a checkpoint, the likeliest first; none where there is none.

    Averaged weights come before others, an opponent's (of an adversarial training) last. Of one
    state dict, its keys as they are come before those without the prefix that they have in common.

    Args:
        content: What the file holds: mappings of mappings, tensors and anything else. It may
            contain itself.
    """
    networks = sorted(_networks(content), key=lambda found: found.rank)
    # One more than are named, because each leaves itself out.
    named = list(islice((found for found in networks if found.has_filters), _MOST_NAMED + 1))
    return tuple(candidate for found in networks for candidate in _variants(found, named))


def _networks(content: Mapping[Any, Any]) -> Iterator[_Found]:
    waiting: deque[tuple[tuple[str, ...], Mapping[Any, Any]]] = deque([((), content)])
    seen = {id(content)}
    while waiting:
        path, mapping = waiting.popleft()
        if "param_groups" in mapping:
            continue
        inner = {
            key: value
            for key, value in mapping.items()
            if isinstance(key, str) and isinstance(value, Mapping)
        }
        tensors = {
            key: value
            for key, value in mapping.items()
            if isinstance(key, str) and isinstance(value, Tensor)
        }
        yield from _split(path, tensors)
        for key, value in inner.items():
            if id(value) not in seen and len(path) < _DEEPEST and len(seen) < _MOST_MAPPINGS:
                seen.add(id(value))
                waiting.append(((*path, key), value))


def _split(path: tuple[str, ...], tensors: dict[str, Tensor]) -> Iterator[_Found]:
    """Tell networks that share one mapping apart by the names that their keys begin with."""
    left_out = tuple(key for key in tensors if key.rpartition(".")[2] in _BOOKKEEPING)
    kept = {key: value for key, value in tensors.items() if key not in left_out}
    if not kept:
        return
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in kept.items():
        first, _, rest = key.partition(".")
        if rest and (first.lower() in _WRAPPERS or _AVERAGED.search(first.lower())):
            groups.setdefault(first, {})[rest] = value
    if sum(map(len, groups.values())) == len(kept) and len(groups) == 1:
        groups = {}
    yield _Found(path, kept, left_out)
    for first, members in groups.items():
        yield _Found((*path, first), members, left_out)


def _variants(found: _Found, named: list[_Found]) -> Iterator[Candidate]:
    notes = [f"state dict found under {found}"] if found.path else []
    others = [other for other in named if other is not found]
    if others:
        more = " and others" if len(others) > _MOST_NAMED else ""
        also = ", ".join(map(str, others[:_MOST_NAMED])) + more
        notes.append(f"several networks in the file: {found} was taken, not {also}")
    if found.left_out:
        names = printable(", ".join(found.left_out[:3]))
        notes.append(f"{len(found.left_out)} entries left out that are no weights, such as {names}")
    tensors = found.tensors
    yield Candidate(tensors, tuple(notes))
    for _ in range(_DEEPEST):
        first = next(iter(tensors)).partition(".")[0] + "."
        if not all(key.startswith(first) and len(key) > len(first) for key in tensors):
            return
        notes.append(f"prefix {printable(first)!r} removed from every key")
        tensors = {key.removeprefix(first): value for key, value in tensors.items()}
        yield Candidate(tensors, tuple(notes))
