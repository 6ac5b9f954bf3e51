"""What a layer's maps on calibration pictures say about its filters, in sums of a fixed size.

A convolution without its bias is a linear map of patches. With P the patches of the layer's input,
T_c the wanted output of channel c and S_k the shift by candidate k, everything that chooses and
refits filters needs only A = P'P and B[k, c] = P'(T_c moved back by k). For stride 1 and zero
padding both are made of correlations of whole maps at a few lags, so their cost does not grow with
the square of the filter size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostsr_ext.conversion.correlation import correlate


@dataclass
class Statistics:
    """Sums over output positions for one group of a convolution, all float64.

    Lives on the CPU.

    Attributes:
        gram: P'P, [D, D] with D = C_in / groups * kH * kW.
        patch_sum: Sum of the patches, [D].
        cross: P'(T_c moved back by k), [K, C, D]; T less its mean.
        energy: |T_c|² after the mean is taken away, [C].
        mean: Mean of T_c, [C].
        count: Number of output positions.
    """

    gram: Tensor
    patch_sum: Tensor
    cross: Tensor
    energy: Tensor
    mean: Tensor
    count: int

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of both sets of positions together."""
        count = self.count + other.count
        mean = (self.count * self.mean + other.count * other.mean) / count
        merged = [self._about(mean), other._about(mean)]
        return Statistics(
            self.gram + other.gram,
            self.patch_sum + other.patch_sum,
            merged[0][0] + merged[1][0],
            merged[0][1] + merged[1][1],
            mean,
            count,
        )

    def _about(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        moved = self.mean - mean
        # Away from the border, moving a map does not change what a constant correlates with.
        cross = self.cross + moved[None, :, None] * self.patch_sum
        return cross, self.energy + self.count * moved.square()


def candidate_offsets(max_shift: int) -> list[tuple[int, int]]:
    """Return the candidates (dy, dx) in the operators' order."""
    reach = range(-max_shift, max_shift + 1)
    return [(dy, dx) for dy in reach for dx in reach]


def gather_statistics(
    layer: nn.Conv2d, inputs: Tensor, targets: Tensor, max_shift: int
) -> list[Statistics]:
    """Return the statistics of each group of ``layer``.

    Args:
        layer: The convolution.
        inputs: [N, C_in, H, W]; for a convolution with ``border(layer)`` enlarged by it.
        targets: Wanted outputs before the activation, [N, C_out, H', W'].
        max_shift: d.
    """
    compute = _by_patches if border(layer) is None else _by_lags
    per_in = layer.in_channels // layer.groups
    per_out = layer.out_channels // layer.groups
    return [
        compute(
            layer,
            inputs[:, group * per_in : (group + 1) * per_in],
            targets[:, group * per_out : (group + 1) * per_out],
            candidate_offsets(max_shift),
        )
        for group in range(layer.groups)
    ]


def border(layer: nn.Conv2d) -> tuple[int, int] | None:
    """Return how far around a picture the filters of a size-keeping convolution reach.

    With inputs enlarged by as many zero rows and columns on every side, sums over output positions
    are sums over the whole plane, which is what makes correlations of whole maps exact. None for a
    convolution that is strided, not zero-padded or does not keep the size.
    """
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding_mode != "zeros" or set(layer.stride) != {1} or any(r % 2 for r in reach):
        return None
    rows, columns = reach[0] // 2, reach[1] // 2
    return (rows, columns) if layer.padding in ("same", (rows, columns)) else None


def kernel_offsets(layer: nn.Conv2d) -> list[tuple[int, int]]:
    """Return where the entries of a filter lie, (dy, dx) from its centre, in pixels."""
    (height, width), (down, across) = layer.kernel_size, layer.dilation
    return [
        (down * row - down * (height - 1) // 2, across * column - across * (width - 1) // 2)
        for row in range(height)
        for column in range(width)
    ]


def _by_lags(
    layer: nn.Conv2d, inputs: Tensor, targets: Tensor, candidates: list[tuple[int, int]]
) -> Statistics:
    offsets = kernel_offsets(layer)
    mean, centred, energy = _centred(targets)
    channels, filters = inputs.shape[1], len(offsets)
    lags = {
        (u, v): _sum(offsets[v], offsets[u], -1) for u in range(filters) for v in range(filters)
    }
    sums = correlate(inputs, inputs, lags.values())
    gram = torch.zeros(channels, filters, channels, filters, dtype=torch.float64)
    for (u, v), lag in lags.items():
        gram[:, u, :, v] = sums[lag]
    lags = {
        (k, u): _sum(offsets[u], candidates[k])
        for k in range(len(candidates))
        for u in range(filters)
    }
    sums = correlate(centred, inputs, lags.values())
    cross = torch.zeros(len(candidates), targets.shape[1], channels, filters, dtype=torch.float64)
    for (k, u), lag in lags.items():
        cross[k, :, :, u] = sums[lag]
    size = channels * filters
    total = _channel_sum(inputs)
    return Statistics(
        gram.view(size, size),
        total[:, None].expand(channels, filters).reshape(size),
        cross.view(len(candidates), targets.shape[1], size),
        energy,
        mean,
        targets[:, 0].numel(),
    )


def _sum(first: tuple[int, int], second: tuple[int, int], sign: int = 1) -> tuple[int, int]:
    return first[0] + sign * second[0], first[1] + sign * second[1]


def _channel_sum(maps: Tensor) -> Tensor:
    # Picture by picture, because a copy of all maps in float64 would double the memory.
    sums = [picture.double().sum(dim=(1, 2)) for picture in maps]
    return torch.stack(sums).sum(0).cpu()


def _centred(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the channels' means, the targets less them, and what is left of their energy."""
    mean = _channel_sum(targets) / targets[:, 0].numel()
    centred = targets - mean.to(targets)[:, None, None]
    squares = [picture.double().square().sum(dim=(1, 2)) for picture in centred]
    return mean, centred, torch.stack(squares).sum(0).cpu()


def _by_patches(
    layer: nn.Conv2d, inputs: Tensor, targets: Tensor, candidates: list[tuple[int, int]]
) -> Statistics:
    mean, centred, energy = _centred(targets)
    filter_size = inputs.shape[1] * layer.kernel_size[0] * layer.kernel_size[1]
    gram = inputs.new_zeros(filter_size, filter_size, dtype=torch.float64)
    patch_sum = inputs.new_zeros(filter_size, dtype=torch.float64)
    cross = inputs.new_zeros(len(candidates), targets.shape[1], filter_size, dtype=torch.float64)
    padded, padding = _explicit_padding(layer, inputs)
    for picture, target in zip(padded.split(1), centred.split(1), strict=True):
        patches = functional.unfold(
            picture, layer.kernel_size, layer.dilation, padding, layer.stride
        )[0]
        gram += patches @ patches.T
        patch_sum += patches.sum(1)
        for k, (dy, dx) in enumerate(candidates):
            cross[k] += shifted(target, -dy, -dx)[0].flatten(1) @ patches.T
    return Statistics(
        gram.cpu(),
        patch_sum.cpu(),
        cross.cpu(),
        energy,
        mean,
        targets[:, 0].numel(),
    )


def _explicit_padding(layer: nn.Conv2d, inputs: Tensor) -> tuple[Tensor, tuple[int, int]]:
    if layer.padding == "valid":
        return inputs, (0, 0)
    if layer.padding == "same" or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        edges = layer._reversed_padding_repeated_twice
        return functional.pad(inputs, edges, mode=mode), (0, 0)
    assert isinstance(layer.padding, tuple)
    return inputs, (layer.padding[0], layer.padding[1])


def shifted(maps: Tensor, dy: int, dx: int) -> Tensor:
    """Return the maps [..., H, W] read at (y + dy, x + dx), zero outside."""
    height, width = maps.shape[-2:]
    result = torch.zeros_like(maps)
    if abs(dy) < height and abs(dx) < width:
        rows = slice(max(0, dy), height + min(0, dy)), slice(max(0, -dy), height - max(0, dy))
        columns = slice(max(0, dx), width + min(0, dx)), slice(max(0, -dx), width - max(0, dx))
        result[..., rows[1], columns[1]] = maps[..., rows[0], columns[0]]
    return result
