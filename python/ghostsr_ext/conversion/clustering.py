"""Choosing intrinsic channels, sources, shifts and filters from a layer's statistics.

With A = P'P and b(c, k) = P'(T_c moved back by k), a filter w serves ghost c with shift k and
gain g at the squared error |T_c|² - 2 g w'b(c, k) + g² w'Aw, and the best filter for a cluster is
A⁻¹ (sum of g b) / (sum of g²). So all errors are sums of entries of one kernel,
Q[(c, k), (c', k')] = b(c, k)' A⁻¹ b(c', k'), and the search never touches the pictures again.

Where a shift reads outside of the map, a ghost has nothing but its own bias. There, a part of the
positions that ``Statistics.outside`` tells, all of the wanted energy is missed and with it the mean
that the source would have given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ghostsr_ext.conversion.medoids import medoids
from ghostsr_ext.conversion.statistics import Statistics
from ghostsr_ext.errors import InputError
from ghostsr_ext.nn import ShiftScope

# Relative to the diagonal. Maps of a trained network are nearly collinear, and their sums are exact
# to about 1e-6; the least ridge with which the factorisation succeeds is used.
_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Ghosts with a gain and a bias before the ReLU are copies of their sources but for where it cuts
# them off. A layer behind would take what it lacks from such small differences, with huge weights.
# It gets a larger ridge, which inputs that hardly vary share with the others.
_LEAST_RIDGE_WITH_GAINS = 1e-4
_LEAST_UNIT, _LEAST_UNIT_WITH_GAINS = 1e-9, 1e-2
_ROUNDS = 30
_LEAST_GAIN = 0.05
_TINY = 1e-30


@dataclass
class ClusterFit:
    """One group of a layer: its channels count from 0.

    Attributes:
        intrinsic: Channels [I], ascending.
        ghosts: The other channels [G].
        source: [G], index into ``intrinsic``.
        shift: [G], index of the candidate.
        gain: [G], float64.
        filters: [I, D], float64.
        squared_error: Squared error of all channels, in the units of the statistics.
        mixture: [I, C, K]; the filters are A⁻¹ times these parts of b(c, k).
    """

    intrinsic: Tensor
    ghosts: Tensor
    source: Tensor
    shift: Tensor
    gain: Tensor
    filters: Tensor
    squared_error: float
    mixture: Tensor


class ShiftKernel:
    """The kernel Q of one group of a layer.

    Args:
        statistics: Statistics of the group.
        affine: Whether ghosts have gains and biases of their own. Without, the means of channels
            count, because a ghost inherits its source's bias.
        scaled: Whether ghosts have gains, positive ones, but inherit the bias, multiplied.

    Attributes:
        channels: Number of channels, C.
        candidates: Number of shifts that a ghost may have, K.
        q: Q, [C, K, C, K].
        energy: What there is to explain of each channel, [C].
        inside: Part of the positions at which each shift reads the map, [K].
    """

    def __init__(self, statistics: Statistics, *, affine: bool, scaled: bool = False) -> None:
        s = statistics
        self.gains = affine or scaled
        self._least_gain = _LEAST_GAIN if scaled else -torch.inf
        self.candidates, self.channels, size = s.cross.shape
        self._gram = s.gram
        self._factor = factorize(s.gram, gains=affine)
        self._cross = s.cross.permute(1, 0, 2).reshape(-1, size)
        half = torch.linalg.solve_triangular(self._factor, self._cross.T, upper=False)
        q = half.T @ half
        energy = s.energy.clone()
        mean_power = s.count * s.mean.square()
        if not affine:
            mean = s.mean.repeat_interleave(self.candidates)
            q += s.count * torch.outer(mean, mean)
            energy += mean_power
        self.q = q.view(self.channels, self.candidates, self.channels, self.candidates)
        self.energy = energy
        self.inside = (1 - s.outside).clamp_min(_TINY)
        self._lost = torch.outer(mean_power, s.outside / self.inside) * affine

    def filters(self, mixture: Tensor) -> Tensor:
        """Return A⁻¹ times the mixture of b(c, k), from [I, C, K] to [I, D]."""
        target = mixture.reshape(len(mixture), -1) @ self._cross
        return torch.cholesky_solve(target.T, self._factor).T

    def ridge_power(self, filters: Tensor) -> Tensor:
        """Return how much less power [I] the outputs of filters have than the errors reckon with.

        It is what the ridge of the factorisation adds.
        """
        with_ridge = (filters @ self._factor).square().sum(1)
        return with_ridge - ((filters @ self._gram) * filters).sum(1)

    def pairwise_error(self) -> Tensor:
        """Error [C, S, K] of channel c made from the best filter of channel s."""
        zero = self.candidates // 2
        agreement = self.q[:, zero].permute(1, 0, 2)
        power = self.q[:, zero, :, zero].diagonal()
        return self._error(agreement, power, torch.arange(self.channels))[0]

    def served_error(self, mixture: Tensor, intrinsic: Tensor) -> tuple[Tensor, Tensor]:
        """Error and gain, [C, I, K] each, of channel c made from cluster i's filter.

        Args:
            mixture: [I, C, K].
            intrinsic: Channel [I] that each filter belongs to.
        """
        flat = self.q.reshape(self.channels * self.candidates, -1)
        spread = mixture.reshape(len(mixture), -1)
        projected = spread @ flat
        power = (projected * spread).sum(1)
        agreement = projected.view(len(mixture), self.channels, self.candidates)
        return self._error(agreement.permute(1, 0, 2), power, intrinsic)

    def _error(self, agreement: Tensor, power: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        whole = (power[:, None] + self._lost[sources]).clamp_min(_TINY)
        gain = torch.ones_like(agreement)
        if self.gains:
            gain = (agreement / whole).clamp_min(self._least_gain)
        explained = 2 * gain * agreement - gain.square() * whole
        return self.energy[:, None, None] - self.inside * explained, gain


def fit_clusters(kernel: ShiftKernel, count: int, shift_scope: ShiftScope) -> ClusterFit:
    """Choose ``count`` intrinsic channels and fit their filters to all channels they serve.

    k-medoids on the errors between channels, then alternately the best source and shift for every
    ghost and the best filter for every cluster. Once without shifts, once with them, and once from
    the former to the latter; the least error counts, so shifts never make it larger.
    """
    pairwise = kernel.pairwise_error()
    still = torch.tensor([kernel.candidates // 2])
    allowed = _allowed_shifts(pairwise, kernel, shift_scope)
    fits = [_search(kernel, pairwise, count, still)]
    if not torch.equal(allowed, still):
        fits.append(_search(kernel, pairwise, count, allowed))
        if len(allowed) > 1:
            fits.append(_refine(kernel, fits[0].intrinsic, fits[0].mixture, allowed))
    return min(fits, key=lambda fit: fit.squared_error)


def _search(kernel: ShiftKernel, pairwise: Tensor, count: int, allowed: Tensor) -> ClusterFit:
    own = pairwise[:, :, kernel.candidates // 2].diagonal()
    best = pairwise[:, :, allowed].amin(2)
    # What no filter reaches is no reason to prefer one source to another.
    intrinsic = medoids(best - own[:, None], count)
    alone = torch.zeros(count, kernel.channels, kernel.candidates, dtype=torch.float64)
    alone[torch.arange(count), intrinsic, kernel.candidates // 2] = 1
    return _refine(kernel, intrinsic, alone, allowed)


def _refine(kernel: ShiftKernel, intrinsic: Tensor, mixture: Tensor, allowed: Tensor) -> ClusterFit:
    is_ghost = torch.ones(kernel.channels, dtype=torch.bool)
    is_ghost[intrinsic] = False
    ghosts = torch.nonzero(is_ghost).flatten()
    own = intrinsic, torch.arange(len(intrinsic)), kernel.candidates // 2
    last = float("inf")
    error, gain = kernel.served_error(mixture, intrinsic)
    for _ in range(_ROUNDS):
        source, shift = _choose(error, ghosts, allowed)
        mixture = _mixture(kernel, intrinsic, ghosts, source, shift, gain[ghosts, source, shift])
        error, gain = kernel.served_error(mixture, intrinsic)
        total = float(error[ghosts, source, shift].sum() + error[own].sum())
        if not total < last * (1 - 1e-5):
            break
        last = total
    gains = gain[ghosts, source, shift]
    filters = kernel.filters(mixture)
    served = torch.ones(len(intrinsic), dtype=torch.float64)
    served.index_add_(0, source, kernel.inside[shift] * gains.square())
    total -= float(kernel.ridge_power(filters) @ served)
    return ClusterFit(intrinsic, ghosts, source, shift, gains, filters, total, mixture)


def _allowed_shifts(pairwise: Tensor, kernel: ShiftKernel, scope: ShiftScope) -> Tensor:
    everything = torch.arange(kernel.candidates)
    if scope == "channel":
        return everything
    nearest = pairwise.clone()
    nearest[torch.arange(kernel.channels), torch.arange(kernel.channels)] = float("inf")
    return nearest.amin(1).sum(0).argmin().view(1)


def _choose(error: Tensor, ghosts: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    index = error[ghosts][:, :, allowed].flatten(1).argmin(1)
    return index // len(allowed), allowed[index % len(allowed)]


def _mixture(
    kernel: ShiftKernel,
    intrinsic: Tensor,
    ghosts: Tensor,
    source: Tensor,
    shift: Tensor,
    gain: Tensor,
) -> Tensor:
    count = len(intrinsic)
    mixture = torch.zeros(count, kernel.channels, kernel.candidates, dtype=torch.float64)
    mixture[torch.arange(count), intrinsic, kernel.candidates // 2] = 1
    weight = kernel.inside[shift]
    mixture[source, ghosts, shift] = weight * gain
    total = torch.ones(count, dtype=torch.float64)
    total.index_add_(0, source, weight * gain.square())
    return mixture / total[:, None, None]


def factorize(gram: Tensor, *, gains: bool = False) -> Tensor:
    """Return the Cholesky factor of ``gram`` [D, D] with as small a ridge as will do.

    Args:
        gram: [D, D].
        gains: Whether the ghosts among the inputs and outputs have gains.

    Raises:
        InputError: The matrix is not finite.
    """
    diagonal = gram.diagonal()
    # Inputs that are constant on the pictures have no weight of their own.
    floor = _LEAST_UNIT_WITH_GAINS if gains else _LEAST_UNIT
    unit = diagonal.clamp_min(floor * diagonal.mean()).clamp_min(1e-30)
    least = _LEAST_RIDGE_WITH_GAINS if gains else _RIDGES[0]
    for ridge in (ridge for ridge in _RIDGES if ridge >= least):
        result = torch.linalg.cholesky_ex(gram + torch.diag(ridge * unit))
        factor: Tensor = result.L
        if not int(result.info):
            return factor
    raise InputError("calibration: the layer's inputs on these pictures are not finite")
