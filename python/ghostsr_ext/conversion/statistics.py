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

# Sums over this many positions are exact enough in float32; they are added up in float64.
_CHUNK = 16384


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
    margin_y = 2 * max(abs(dy) for dy, _ in offsets) + max(abs(dy) for dy, _ in candidates)
    margin_x = 2 * max(abs(dx) for _, dx in offsets) + max(abs(dx) for _, dx in candidates)
    mean = targets.double().mean(dim=(0, 2, 3))
    centred = targets - mean.to(targets.dtype)[:, None, None]
    row = inputs.shape[3] + margin_x
    flat_inputs = _flatten(inputs, margin_y, margin_x)
    flat_targets = _flatten(centred, margin_y, margin_x)
    lags: dict[tuple[int, int], Tensor] = {}
    channels, filters = inputs.shape[1], len(offsets)
    gram = inputs.new_zeros(channels, filters, channels, filters, dtype=torch.float64)
    for u, (uy, ux) in enumerate(offsets):
        for v, (vy, vx) in enumerate(offsets):
            lag = (vy - uy, vx - ux)
            if lag not in lags:
                opposite = lags.get((-lag[0], -lag[1]))
                lags[lag] = (
                    _correlation(flat_inputs, flat_inputs, lag[0] * row + lag[1])
                    if opposite is None
                    else opposite.T
                )
            gram[:, u, :, v] = lags[lag]
    crossed: dict[tuple[int, int], Tensor] = {}
    cross = inputs.new_zeros(
        len(candidates), targets.shape[1], channels, filters, dtype=torch.float64
    )
    for k, (ky, kx) in enumerate(candidates):
        for u, (uy, ux) in enumerate(offsets):
            lag = (uy + ky, ux + kx)
            if lag not in crossed:
                crossed[lag] = _correlation(flat_targets, flat_inputs, lag[0] * row + lag[1])
            cross[k, :, :, u] = crossed[lag]
    size = channels * filters
    total = inputs.double().sum(dim=(0, 2, 3))
    return Statistics(
        gram.view(size, size).cpu(),
        total[:, None].expand(channels, filters).reshape(size).cpu(),
        cross.view(len(candidates), targets.shape[1], size).cpu(),
        centred.double().square().sum(dim=(0, 2, 3)).cpu(),
        mean.cpu(),
        targets[:, 0].numel(),
    )


def _flatten(maps: Tensor, margin_y: int, margin_x: int) -> Tensor:
    """Lay maps out as [C, L], far enough apart that a lag never reaches the next row or map."""
    padded = functional.pad(maps, (0, margin_x, 0, margin_y))
    return padded.transpose(0, 1).reshape(maps.shape[1], -1)


def _correlation(first: Tensor, second: Tensor, lag: int) -> Tensor:
    """Return the sum over p of first[i, p] * second[j, p + lag], [I, J] in float64."""
    length = first.shape[1]
    start, stop = max(0, -lag), min(length, length - lag)
    total = first.new_zeros(first.shape[0], second.shape[0], dtype=torch.float64)
    for begin in range(start, stop, _CHUNK):
        end = min(begin + _CHUNK, stop)
        total += first[:, begin:end] @ second[:, begin + lag : end + lag].T
    return total


def _by_patches(
    layer: nn.Conv2d, inputs: Tensor, targets: Tensor, candidates: list[tuple[int, int]]
) -> Statistics:
    mean = targets.double().mean(dim=(0, 2, 3))
    centred = targets - mean.to(targets.dtype)[:, None, None]
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
        centred.double().square().sum(dim=(0, 2, 3)).cpu(),
        mean.cpu(),
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
