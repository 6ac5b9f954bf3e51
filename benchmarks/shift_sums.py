"""Compare ghosts that are sums of T shifted channels, and low rank, at equal multiply-adds.

A ghost of this package is one shifted channel, with a gain where asked. Here it is a sum of T
shifted channels with a gain each. Filters and sums are fitted in turns to the statistics that a
calibration gathers: sums by orthogonal matching pursuit over all shifted channels, filters by
conjugate gradients. Low rank is the plain alternative, a convolution to fewer channels followed by
a 1x1 convolution, fitted by reduced-rank regression. Both run in plain torch, are calibrated like
ghost layers and end with the same steps of training, on the same pictures.

    python benchmarks/shift_sums.py --threads 1 --markdown docs/conversion.md
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from ghostsr_ext import ops
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import calibration, convert
from ghostsr_ext.conversion.clustering import factorise
from ghostsr_ext.conversion.convolutions import trace
from ghostsr_ext.conversion.distillation import polish
from ghostsr_ext.conversion.methods import layers_between
from ghostsr_ext.conversion.pictures import calibration_inputs
from ghostsr_ext.conversion.selection import select_layers
from ghostsr_ext.conversion.settings import GhostSettings
from ghostsr_ext.conversion.statistics import (
    Statistics,
    candidate_offsets,
    gather_statistics,
    kernel_offsets,
    margin,
    surround,
)
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.evaluation import evaluate
from ghostsr_ext.models import SRModel
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, convolution_arguments
from measuring import Clock, markdown_table, publish, ratio, run_interleaved, write_json
from torch import Tensor, nn
from torch.nn import functional

DEFAULT_DATA = Path(os.environ.get("GHOSTSR_DATA", "../shared/data"))
NETWORKS = ("edsr_mobile_f32b5_x2.pth", "edsr_r8f64_x2.pth")
WAYS = ("1 channel", "sums of 2", "sums of 4", "low rank", "low rank, narrower")
STEPS = (0, 60)
GHOST_RATIO = 0.5

_SHIFT = 1
_OFFSETS = candidate_offsets(_SHIFT)
_LAGS = candidate_offsets(2 * _SHIFT)
_ROUNDS = 3
_GRADIENTS = 8
_RIDGE = 1e-4
_SIDE = 128
_NARROWER = 4 / 7


class ShiftSums(nn.Conv2d):
    """A 3x3 convolution whose ghosts are sums of several shifted channels of its output.

    Args:
        dense: The layer in whose place it is.
        intrinsic: The channels [I] that are computed.
        ghosts: The other channels [G].
        source: What each ghost is made from, [G, T].
        shift: The index of the shift of each, [G, T].
    """

    def __init__(
        self, dense: nn.Conv2d, intrinsic: Tensor, ghosts: Tensor, source: Tensor, shift: Tensor
    ) -> None:
        super().__init__(dense.in_channels, len(intrinsic), **convolution_arguments(dense))
        self.ghost_channels = len(ghosts)
        self.activation = getattr(dense, "activation", "none")
        self.residual_scale = getattr(dense, "residual_scale", 1.0)
        self.source, self.shift = source, shift
        self.order = torch.cat([intrinsic, ghosts]).argsort()
        self.gain = nn.Parameter(torch.zeros(source.shape))
        self.ghost_bias = nn.Parameter(torch.zeros(len(ghosts)))

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return what the layer passes on, [N, C_out, H, W]."""
        maps = super().forward(input)
        rows = torch.arange(self.ghost_channels)[:, None].expand_as(self.source)
        sums = self.gain.new_zeros(self.ghost_channels, maps.shape[1], len(_OFFSETS))
        sums = sums.index_put((rows, self.source, self.shift), self.gain, accumulate=True)
        side = 2 * _SHIFT + 1
        ghosts = functional.conv2d(
            maps, sums.unflatten(2, (side, side)), self.ghost_bias, padding=_SHIFT
        )
        return _end(self, torch.cat([maps, ghosts], 1)[:, self.order], residual)


class LowRank(nn.Module):
    """A convolution to fewer channels and a 1x1 convolution in the place of one convolution."""

    def __init__(self, dense: nn.Conv2d, rank: int) -> None:
        super().__init__()
        arguments = {**convolution_arguments(dense), "bias": False}
        self.first = nn.Conv2d(dense.in_channels, rank, **arguments)
        self.second = nn.Conv2d(rank, dense.out_channels, 1)
        self.ghost_channels = dense.out_channels
        self.activation = getattr(dense, "activation", "none")
        self.residual_scale = getattr(dense, "residual_scale", 1.0)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return what the layer passes on, [N, C_out, H, W]."""
        return _end(self, self.second(self.first(input)), residual)


def _end(layer: ShiftSums | LowRank, maps: Tensor, residual: Tensor | None) -> Tensor:
    maps = maps * layer.residual_scale
    if residual is not None:
        maps = maps + residual
    return maps.relu() if layer.activation == "relu" else maps


def stage_for(way: str) -> type[calibration._Stage]:
    """Return what stands in for a layer while the network is calibrated ``way``."""

    class Stage(calibration._Stage):
        _moved: Tensor | None = None

        def _gather(
            self, dense_input: Tensor, input: Tensor, debt: Tensor | None, added: Tensor | None
        ) -> list[Statistics]:
            if way.startswith("sums") and self._moved is None:
                self._moved = moved_moments(self.dense, input)
            return super()._gather(dense_input, input, debt, added)

        def _build(self) -> None:
            super()._build()
            if not self._ratio:
                return
            uses = zip(*self._statistics.values(), strict=True)
            (statistics,) = (reduce(add, group) for group in uses)
            assert isinstance(self.ghost, GhostConv2d)
            if way.startswith("low rank"):
                rank = low_rank(way, self.dense.out_channels)
                layer: Any = fit_low_rank(self.dense, statistics, rank)
            else:
                assert self._moved is not None
                terms = int(way.split()[-1])
                layer = fit_sums(self.dense, self.ghost, statistics, self._moved, terms)
            self.ghost = layer.requires_grad_(self.dense.weight.requires_grad)

    return Stage


def moved_moments(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Return P'P moved by each lag that two shifts can be apart, [lags, D, D]."""
    offsets = kernel_offsets(layer)
    reach = 2 * _SHIFT + max(max(offset) for offset in offsets)
    around = surround(inputs, margin(layer, reach))
    cross = gather_statistics(layer, inputs, around, reach)[0].cross
    places = {offset: place for place, offset in enumerate(candidate_offsets(reach))}
    moments = [
        torch.stack([cross[places[-y - v, -x - w]] for v, w in offsets], 1).flatten(0, 1).T
        for y, x in _LAGS
    ]
    return torch.stack(moments)


def fit_sums(
    dense: nn.Conv2d, ghost: GhostConv2d, statistics: Statistics, moved: Tensor, terms: int
) -> ShiftSums:
    """Fit sums of ``terms`` channels, from the intrinsic channels and filters of a ghost layer."""
    channels = torch.arange(dense.out_channels)
    intrinsic = channels[ghost.order < ghost.intrinsic_channels]
    ghosts = channels[ghost.order >= ghost.intrinsic_channels]
    gram = statistics.gram
    unit = gram.diagonal().clamp_min(1e-2 * gram.diagonal().mean())
    moved = moved.clone()
    moved[len(_LAGS) // 2] = gram + torch.diag(_RIDGE * unit)
    factor = factorise(gram, gains=True)
    filters = ghost.weight.detach().double().flatten(1)
    for _ in range(_ROUNDS):
        source, shift, gain = pursue(filters, statistics.cross[:, ghosts], moved, terms)
        filters = refit(
            filters, source, shift, gain, statistics.cross, moved, factor, ghosts, intrinsic
        )
    source, shift, gain = pursue(filters, statistics.cross[:, ghosts], moved, terms)
    layer = ShiftSums(dense, intrinsic, ghosts, source, shift)
    mean = statistics.mean
    sums = (gain * mean[intrinsic][source]).sum(1)
    with torch.no_grad():
        layer.weight.copy_(filters.view_as(layer.weight))
        layer.gain.copy_(gain)
        layer.ghost_bias.copy_(mean[ghosts] - sums)
        assert layer.bias is not None
        layer.bias.copy_(mean[intrinsic] - filters @ statistics.patch_mean)
    return layer


def pursue(
    filters: Tensor, cross: Tensor, moved: Tensor, terms: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose ``terms`` shifted channels for each ghost by orthogonal matching pursuit.

    Args:
        filters: [I, D].
        cross: Of the ghosts, [K, G, D].
        moved: As ``moved_moments`` returns them.
        terms: T.

    Returns:
        Sources, shifts and gains, [G, T] each.
    """
    count, size = len(filters), len(_OFFSETS)
    by_lag = filters @ moved @ filters.T
    place = {lag: number for number, lag in enumerate(_LAGS)}
    gram = torch.empty(count, size, count, size, dtype=torch.float64)
    for k, (y, x) in enumerate(_OFFSETS):
        for other, (v, w) in enumerate(_OFFSETS):
            gram[:, k, :, other] = by_lag[place[v - y, w - x]]
    gram = gram.flatten(2).flatten(0, 1)
    wanted = torch.einsum("id,kgd->gik", filters, cross).flatten(1)
    chosen = torch.empty(len(wanted), 0, dtype=torch.int64)
    gain = torch.empty(len(wanted), 0, dtype=torch.float64)
    for _ in range(terms):
        rest = wanted - (gain[:, :, None] * gram[chosen]).sum(1)
        score = rest.square() / gram.diagonal().clamp_min(1e-30)
        score.scatter_(1, chosen, -1.0)
        chosen = torch.cat([chosen, score.argmax(1, keepdim=True)], 1)
        inner = gram[chosen[:, :, None], chosen[:, None, :]]
        inner = inner + _RIDGE * torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
        gain = torch.linalg.solve(inner, wanted.gather(1, chosen))
    return chosen // size, chosen % size, gain


def refit(
    filters: Tensor,
    source: Tensor,
    shift: Tensor,
    gain: Tensor,
    cross: Tensor,
    moved: Tensor,
    factor: Tensor,
    ghosts: Tensor,
    intrinsic: Tensor,
) -> Tensor:
    """Improve the filters [I, D] for given sums, by conjugate gradients."""
    count = len(filters)
    place = {lag: number for number, lag in enumerate(_LAGS)}
    weights = torch.zeros(len(_LAGS), count, count, dtype=torch.float64)
    weights[place[0, 0]] = torch.eye(count, dtype=torch.float64)
    wanted = cross[len(_OFFSETS) // 2, intrinsic].clone()
    for t in range(source.shape[1]):
        wanted.index_add_(0, source[:, t], gain[:, t, None] * cross[shift[:, t], ghosts])
        for other in range(source.shape[1]):
            lags = [
                place[_OFFSETS[b][0] - _OFFSETS[a][0], _OFFSETS[b][1] - _OFFSETS[a][1]]
                for a, b in zip(shift[:, t].tolist(), shift[:, other].tolist(), strict=True)
            ]
            indices = (torch.tensor(lags), source[:, t], source[:, other])
            weights.index_put_(indices, gain[:, t] * gain[:, other], accumulate=True)
    used = weights.flatten(1).any(1)
    weights, moments = weights[used], moved[used]

    def apply(some: Tensor) -> Tensor:
        return (weights @ some @ moments.transpose(1, 2)).sum(0)

    def precondition(some: Tensor) -> Tensor:
        return torch.cholesky_solve(some.T, factor).T

    rest = wanted - apply(filters)
    better = precondition(rest)
    direction, power = better, (rest * better).sum()
    for _ in range(_GRADIENTS):
        image = apply(direction)
        step = power / (direction * image).sum()
        filters, rest = filters + step * direction, rest - step * image
        better = precondition(rest)
        last, power = power, (rest * better).sum()
        direction = better + power / last * direction
    return filters


def fit_low_rank(dense: nn.Conv2d, statistics: Statistics, rank: int) -> LowRank:
    """Fit two convolutions with ``rank`` channels between them by reduced-rank regression."""
    factor = factorise(statistics.gram, gains=True)
    wanted = statistics.cross[len(_OFFSETS) // 2]
    half = torch.linalg.solve_triangular(factor, wanted.T, upper=False).T
    basis = torch.linalg.svd(half, full_matrices=False).U[:, :rank]
    filters = torch.cholesky_solve((basis.T @ wanted).T, factor).T
    layer = LowRank(dense, rank)
    with torch.no_grad():
        layer.first.weight.copy_(filters.view_as(layer.first.weight))
        layer.second.weight.copy_(basis[:, :, None, None])
        assert layer.second.bias is not None
        layer.second.bias.copy_(statistics.mean - basis @ (filters @ statistics.patch_mean))
    return layer


def converted(dense: SRModel, way: str, steps: int, data: Path) -> SRModel:
    """Return ``dense`` with another kind of layer, fitted, and after some steps of training."""
    pictures = data / "BSD200"
    if way == "1 channel":
        ghost, _ = convert(
            dense, GHOST_RATIO, calibration=pictures, affine=True, polish_steps=steps
        )
        return ghost
    model = copy.deepcopy(dense).eval()
    inputs = calibration_inputs(model, pictures)
    network = trace(model, inputs[:1])
    layers, _ = select_layers(model, network, None)
    ratios = {entry.name: GHOST_RATIO for entry in layers}
    with mock.patch.object(calibration, "_Stage", stage_for(way)):
        calibration.calibrate(
            model,
            layers,
            ratios,
            inputs,
            GhostSettings(_SHIFT, affine=True),
            between=layers_between(network, layers),
        )
    if steps:
        polish(model, dense, inputs, steps=steps)
    return model


def low_rank(way: str, channels: int) -> int:
    """Return the channels between two convolutions: at equal multiply-adds, or fewer of them."""
    taps = 9 * channels
    rank = round(channels * (1 - GHOST_RATIO)) * taps // (taps + channels)
    return rank if way == "low rank" else round(_NARROWER * rank)


def macs(way: str, channels: int) -> float:
    """Return the multiply-adds of a 3x3 layer, those of gains included, over its convolution's."""
    taps = 9 * channels
    computed = round(channels * (1 - GHOST_RATIO))
    if way.startswith("low rank"):
        return low_rank(way, channels) * (taps + channels) / (computed * taps)
    terms = int(way.split()[-1]) if way.startswith("sums") else 1
    return 1 + (channels - computed) * terms / (computed * taps)


def layer_times(channels: int, size: int, rounds: int) -> dict[str, str]:
    """Return the processor time of a layer of each kind over that of the ghost layer, as text.

    For sums of T, the operator makes T times as many ghosts: as many reads and gains as the sums
    need. It also writes them, which sums would not, so that time is an upper bound.
    """
    computed = round(channels * (1 - GHOST_RATIO))
    image = torch.randn(1, channels, size, size).to(memory_format=torch.channels_last)
    weight = torch.randn(computed, channels, 3, 3) / 30
    generator = torch.Generator().manual_seed(0)

    def ghosts_of(terms: int) -> Callable[[], object]:
        ghosts = terms * (channels - computed)
        source = torch.arange(ghosts) % computed
        shift = torch.randint(-_SHIFT, _SHIFT + 1, (ghosts, 2), generator=generator)
        gain, bias = torch.rand(ghosts), torch.rand(ghosts)
        cache = ops.layer_cache()
        return lambda: ops.ghost_conv(
            image,
            weight,
            None,
            source,
            shift,
            gain=gain,
            ghost_bias=bias,
            padding=1,
            activation="relu",
            cache=cache,
        )

    def pair_of(rank: int) -> Callable[[], object]:
        pair = nn.Sequential(
            FusedConv2d(channels, rank, 3, padding=1, bias=False),
            FusedConv2d(rank, channels, 1, activation="relu"),
        ).eval()
        return lambda: pair(image)

    runs: dict[str, Callable[[], object]] = {
        way: ghosts_of(terms) for way, terms in zip(WAYS, (1, 2, 4), strict=False)
    }
    runs |= {way: pair_of(low_rank(way, channels)) for way in WAYS if way.startswith("low rank")}
    with torch.inference_mode():
        seconds = run_interleaved(runs, rounds, Clock.PROCESSOR, warmup=3)
    return {way: str(ratio(found, seconds[WAYS[0]])) for way, found in seconds.items()}


def table(kept: dict[str, dict[str, Any]]) -> str:
    """Lay out what was measured as Markdown."""
    lines = []
    for file, found in kept.items():
        for way in WAYS:
            measured = [found.get(f"{way}, {steps} steps") for steps in STEPS]
            if any(measured):
                cells = ["" if row is None else f"{row['psnr']:.2f}" for row in measured]
                lines.append(
                    {
                        "network": file.removesuffix(".pth"),
                        "ghosts": way,
                        **{
                            f"{steps} steps": cell for steps, cell in zip(STEPS, cells, strict=True)
                        },
                        "MACs of a layer": f"{found['macs'][way]:.3f}",
                        "time of a layer": found.get("times", {}).get(way, ""),
                    }
                )
    return markdown_table(lines)


def main(
    data: Annotated[Path, typer.Option(help="Folder with weights, Set5, BSD200.")] = DEFAULT_DATA,
    rows: Annotated[Path, typer.Option(help="Where rows are kept.")] = Path(
        "build/shift_sums.json"
    ),
    network: Annotated[list[str] | None, typer.Option(help="Files; two by default.")] = None,
    way: Annotated[list[str] | None, typer.Option(help="Kinds; all by default.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="0 and 60 by default.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds of the layers' timing; 0 for none.")] = 0,
    markdown: Annotated[Path | None, typer.Option(help="Page to write the table into.")] = None,
) -> None:
    torch.set_num_threads(threads)
    kept: dict[str, dict[str, Any]] = json.loads(rows.read_text()) if rows.exists() else {}
    rows.parent.mkdir(parents=True, exist_ok=True)
    for file in network or NETWORKS:
        dense = load_model(data / "weights" / file)
        found = kept.setdefault(file, {})
        found["macs"] = {kind: macs(kind, dense.config["features"]) for kind in WAYS}
        for kind in way or WAYS:
            for number in steps or STEPS:
                label = f"{kind}, {number} steps"
                if label in found:
                    continue
                began = time.process_time()
                model = converted(dense, kind, number, data)
                spent = time.process_time() - began
                psnr = evaluate(model, open_picture_set(data / "Set5"), 2).psnr
                found[label] = {"psnr": psnr, "processor": spent}
                print(file, label, found[label], flush=True)
                write_json(rows, kept)
        if rounds:
            found["times"] = layer_times(dense.config["features"], _SIDE, rounds)
            write_json(rows, kept)
    text = table(kept)
    publish(text, "shift sums", markdown)


if __name__ == "__main__":
    typer.run(main)
