"""Sums of products of maps that are moved against each other."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from ghostsr_ext import _native

Lag = tuple[int, int]

# Sums over this many positions are exact enough in float32; they are added up in float64.
_CHUNK = 16384


def correlate(first: Tensor, second: Tensor, lags: Iterable[Lag]) -> dict[Lag, Tensor]:
    """Return, for every lag (dy, dx), the sum of first[n, i, y, x] * second[n, j, y + dy, x + dx].

    Maps are zero outside. Does not depend on the number of threads.

    Args:
        first: float32 [N, I, H, W].
        second: float32 [N, J, H, W] on the same device; where it is ``first`` itself, the sums at
            opposite lags are each other's transposes exactly.
        lags: Any; on the CPU those within ``_native.MAX_LAG`` rows and columns cost
            little more together than one of them.

    Returns:
        Float64 [I, J] on the CPU, by lag.
    """
    lags = sorted(set(lags))
    max_lag_y, max_lag_x = (max(abs(lag[axis]) for lag in lags) for axis in (0, 1))
    if first.device.type == "cpu" and max(max_lag_y, max_lag_x) <= _native.MAX_LAG:
        return _all_at_once(first, second, lags, (max_lag_y, max_lag_x))
    return _one_by_one(first, second, lags, (max_lag_y, max_lag_x))


def _all_at_once(first: Tensor, second: Tensor, lags: list[Lag], max_lag: Lag) -> dict[Lag, Tensor]:
    maps = first.detach().contiguous().numpy()
    others = maps if second is first else second.detach().contiguous().numpy()
    sums = torch.from_numpy(
        _native.correlate_maps(maps, others, *max_lag, threads=torch.get_num_threads())
    )
    return {lag: sums[lag[0] + max_lag[0], lag[1] + max_lag[1]] for lag in lags}


def _one_by_one(first: Tensor, second: Tensor, lags: list[Lag], max_lag: Lag) -> dict[Lag, Tensor]:
    row = first.shape[3] + max_lag[1]
    flat_first = flatten(first, max_lag)
    flat_second = flat_first if second is first else flatten(second, max_lag)
    sums: dict[Lag, Tensor] = {}
    for dy, dx in lags:
        opposite = sums.get((-dy, -dx)) if second is first else None
        sums[dy, dx] = (
            one_lag(flat_first, flat_second, dy * row + dx) if opposite is None else opposite.T
        )
    return {lag: total.cpu() for lag, total in sums.items()}


def flatten(maps: Tensor, margin: Lag) -> Tensor:
    """Lay maps out side by side, far enough apart that no lag reaches the next row or map.

    Args:
        maps: [N, C, H, W].
        margin: The largest lag in rows and columns.

    Returns:
        [C, L]; a lag of one row is W + margin[1] positions.
    """
    padded = functional.pad(maps, (0, margin[1], 0, margin[0]))
    return padded.transpose(0, 1).reshape(maps.shape[1], -1)


def one_lag(first: Tensor, second: Tensor, lag: int) -> Tensor:
    """Return the sum over p of first[i, p] * second[j, p + lag], float64 [I, J].

    Args:
        first: [I, L], as ``flatten`` lays it out.
        second: [J, L].
        lag: The lag, in positions of the map.
    """
    length = first.shape[1]
    start, stop = max(0, -lag), min(length, length - lag)
    total = first.new_zeros(first.shape[0], second.shape[0], dtype=torch.float64)
    for begin in range(start, stop, _CHUNK):
        end = min(begin + _CHUNK, stop)
        total += first[:, begin:end] @ second[:, begin + lag : end + lag].T
    return total
