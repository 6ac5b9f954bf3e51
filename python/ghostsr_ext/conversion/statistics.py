"""What a layer's maps on calibration pictures say about its filters, in sums of a fixed size.

A convolution without its bias is a linear map of patches. With P the patches of the layer's input,
T_c the wanted output of channel c and S_k the shift by candidate k, everything that chooses and
refits filters needs only A = P'P and B[k, c] = P'(T_c moved back by k), both less their means, for
which biases make up. For stride 1 and zero padding both are made of correlations of whole maps at
a few lags, so their cost does not grow with the square of the filter size. There every map is taken
to go on around the picture with its mean. Less its mean it is then zero outside, as correlations
have it; patches sum to nothing over the plane, and so do the products of a moved map's mean with
them. The zeros that the layer itself finds around a picture would weigh too much on small crops:
next to inputs whose mean is large against their spread they are the strongest edges of all.
"""

from __future__ import annotations

from collections.abc import Callable
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
        gram: P'P, [D, D] with D = C_in / groups * kH * kW; patches less their mean.
        patch_mean: Mean of the patches, [D].
        cross: P'(T_c moved back by k), [K, C, D]; both less their means.
        energy: |T_c|², [C]; T less its mean.
        mean: Mean of T_c, [C].
        count: Number of output positions.
        outside: Part of the positions for which each shift reads outside of the map, [K].
    """

    gram: Tensor
    patch_mean: Tensor
    cross: Tensor
    energy: Tensor
    mean: Tensor
    count: int
    outside: Tensor

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of both sets of positions together."""
        count = self.count + other.count
        part = other.count / count
        patch_step, step = other.patch_mean - self.patch_mean, other.mean - self.mean
        return Statistics(
            self.gram + other.gram + self.count * part * torch.outer(patch_step, patch_step),
            self.patch_mean + part * patch_step,
            self.cross + other.cross + self.count * part * torch.outer(step, patch_step),
            self.energy + other.energy + self.count * part * step.square(),
            self.mean + part * step,
            count,
            (self.count * self.outside + other.count * other.outside) / count,
        )


def candidate_offsets(max_shift: int) -> list[tuple[int, int]]:
    """Return the candidates (dy, dx) in the operators' order."""
    offsets = range(-max_shift, max_shift + 1)
    return [(dy, dx) for dy in offsets for dx in offsets]


def gather_statistics(
    layer: nn.Conv2d, inputs: Tensor, targets: Tensor, max_shift: int
) -> list[Statistics]:
    """Return the statistics of each group of ``layer``.

    Args:
        layer: The convolution.
        inputs: [N, C_in, H, W], float32.
        targets: Wanted outputs before the activation, [N, C_out, H', W'], float32; with what is
            around them, as ``run_surrounded`` returns them.
        max_shift: Largest shift d in pixels.
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


def run_surrounded(
    layer: nn.Conv2d, max_shift: int, run: Callable[[Tensor], Tensor], inputs: Tensor
) -> Tensor:
    """Return what ``run`` makes of ``inputs`` that go on around the picture with their mean.

    Args:
        layer: The convolution whose statistics are gathered.
        max_shift: Largest shift d in pixels.
        run: ``layer`` or a ghost layer in its place, up to the activation.
        inputs: [N, C_in, H, W].

    Returns:
        [N, C_out, H', W'] with ``margin(layer, max_shift)`` rows and columns around the picture.
    """
    rows, columns = margin(layer, max_shift)
    if not rows and not columns:
        return run(inputs)
    # The outer half is spoilt by the zeros around it.
    output = run(surround(inputs, (2 * rows, 2 * columns)))
    height, width = output.shape[-2:]
    return output[..., rows : height - rows, columns : width - columns]


def surround(maps: Tensor, margin: tuple[int, int]) -> Tensor:
    """Return ``maps`` [N, C, H, W] with rows and columns around them that hold their means."""
    rows, columns = margin
    mean = maps.mean(dim=(0, 2, 3), keepdim=True)
    return functional.pad(maps - mean, [columns, columns, rows, rows]) + mean


def margin(layer: nn.Conv2d, max_shift: int) -> tuple[int, int]:
    """Return how many rows and columns around a picture ``gather_statistics`` wants targets for.

    It is as far as a filter and a shift reach together; none for a layer without ``border``.
    """
    around = border(layer)
    return (0, 0) if around is None else (around[0] + max_shift, around[1] + max_shift)


def border(layer: nn.Conv2d) -> tuple[int, int] | None:
    """Return how far around a picture the filters of a size-keeping convolution reach.

    None for a convolution that is strided, not zero-padded or does not keep the size.
    """
    spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding_mode != "zeros" or set(layer.stride) != {1} or any(span % 2 for span in spans):
        return None
    rows, columns = spans[0] // 2, spans[1] // 2
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
    count, size = inputs[:, 0].numel(), (inputs.shape[2], inputs.shape[3])
    input_mean, inputs, _ = _centered(inputs)
    mean, targets, energy = _centered(targets)
    rows, columns = ((targets.shape[axis] - inputs.shape[axis]) // 2 for axis in (2, 3))
    inputs = functional.pad(inputs, [columns, columns, rows, rows])
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
    sums = correlate(targets, inputs, lags.values())
    cross = torch.zeros(len(candidates), targets.shape[1], channels, filters, dtype=torch.float64)
    for (k, u), lag in lags.items():
        cross[k, :, :, u] = sums[lag]
    taps = channels * filters
    return Statistics(
        gram.view(taps, taps),
        input_mean[:, None].expand(channels, filters).reshape(taps),
        cross.view(len(candidates), targets.shape[1], taps),
        energy,
        mean,
        count,
        _outside(candidates, size),
    )


def _outside(candidates: list[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """Return the part [K] of the positions of a map that each shift reads outside of it."""
    height, width = size
    read = [
        max(0, height - abs(dy)) * max(0, width - abs(dx)) / (height * width)
        for dy, dx in candidates
    ]
    return 1 - torch.tensor(read, dtype=torch.float64)


def _sum(first: tuple[int, int], second: tuple[int, int], sign: int = 1) -> tuple[int, int]:
    return first[0] + sign * second[0], first[1] + sign * second[1]


def _channel_sum(maps: Tensor) -> Tensor:
    # Picture by picture, because a copy of all maps in float64 would double the memory.
    sums = [picture.double().sum(dim=(1, 2)) for picture in maps]
    return torch.stack(sums).sum(0).cpu()


def _centered(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the channels' means, the maps less them, and what is left of their energy."""
    mean = _channel_sum(maps) / maps[:, 0].numel()
    centred = maps - mean.to(maps)[:, None, None]
    squares = [picture.double().square().sum(dim=(1, 2)) for picture in centred]
    return mean, centred, torch.stack(squares).sum(0).cpu()


def _by_patches(
    layer: nn.Conv2d, inputs: Tensor, targets: Tensor, candidates: list[tuple[int, int]]
) -> Statistics:
    mean, targets, energy = _centered(targets)
    count = targets[:, 0].numel()
    filter_size = inputs.shape[1] * layer.kernel_size[0] * layer.kernel_size[1]
    gram = inputs.new_zeros(filter_size, filter_size, dtype=torch.float64)
    patch_sum = inputs.new_zeros(filter_size, dtype=torch.float64)
    cross = inputs.new_zeros(len(candidates), targets.shape[1], filter_size, dtype=torch.float64)
    target_sum = inputs.new_zeros(len(candidates), targets.shape[1], dtype=torch.float64)
    padded, padding = _explicit_padding(layer, inputs)
    for picture, target in zip(padded.split(1), targets.split(1), strict=True):
        patches = functional.unfold(
            picture, layer.kernel_size, layer.dilation, padding, layer.stride
        )[0].double()
        gram += patches @ patches.T
        patch_sum += patches.sum(1)
        for k, (dy, dx) in enumerate(candidates):
            moved = shifted(target, -dy, -dx)[0].flatten(1).double()
            cross[k] += moved @ patches.T
            target_sum[k] += moved.sum(1)
    patch_mean = patch_sum / count
    # What a moved map loses at the rim leaves it with a mean.
    return Statistics(
        (gram - torch.outer(patch_sum, patch_mean)).cpu(),
        patch_mean.cpu(),
        (cross - target_sum[..., None] * patch_mean).cpu(),
        energy,
        mean,
        count,
        _outside(candidates, (targets.shape[2], targets.shape[3])),
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
