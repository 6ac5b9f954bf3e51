"""Choosing intrinsic channels, sources, shifts and filters from a layer's statistics.

With A = P'P and b(c, k) = P'(T_c moved back by k), a filter w serves ghost c with shift k and
gain g at the squared error |T_c|² - 2 g w'b(c, k) + g² w'Aw, and the best filter for a cluster is
A⁻¹ (sum of g b) / (sum of g²). So all errors are sums of entries of one kernel,
Q[(c, k), (c', k')] = b(c, k)' A⁻¹ b(c', k'), and the search never touches the pictures again.
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
        squared_error: Of all channels, in the units of the statistics.
    """

    intrinsic: Tensor
    ghosts: Tensor
    source: Tensor
    shift: Tensor
    gain: Tensor
    filters: Tensor
    squared_error: float


class ShiftKernel:
    """The kernel Q of one group of a layer.

    Args:
        statistics: Of the group.
        affine: Whether ghosts have gains and biases of their own. Without, the means of channels
            count, because a ghost inherits its source's bias.
    """

    def __init__(self, statistics: Statistics, *, affine: bool) -> None:
        s = statistics
        self.affine = affine
        self.candidates, self.channels, size = s.cross.shape
        centred = s.gram - torch.outer(s.patch_sum, s.patch_sum) / s.count
        self._factor = factorise(centred, gains=affine)
        self._cross = s.cross.permute(1, 0, 2).reshape(-1, size)
        half = torch.linalg.solve_triangular(self._factor, self._cross.T, upper=False)
        q = half.T @ half
        energy = s.energy.clone()
        if not affine:
            mean = s.mean.repeat_interleave(self.candidates)
            q += s.count * torch.outer(mean, mean)
            energy += s.count * s.mean.square()
        self.q = q.view(self.channels, self.candidates, self.channels, self.candidates)
        self.energy = energy

    def filters(self, mixture: Tensor) -> Tensor:
        """Return A⁻¹ times the mixture of b(c, k), from [I, C, K] to [I, D]."""
        target = mixture.reshape(len(mixture), -1) @ self._cross
        return torch.cholesky_solve(target.T, self._factor).T

    def pairwise_error(self) -> Tensor:
        """Error [C, S, K] of channel c made from the best filter of channel s."""
        zero = self.candidates // 2
        agreement = self.q[:, zero].permute(1, 0, 2)
        return self._error(agreement, self.q[:, zero, :, zero].diagonal()[None, :, None])[0]

    def served_error(self, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Error and gain, [C, I, K] each, of channel c made from cluster i's filter."""
        flat = self.q.reshape(self.channels * self.candidates, -1)
        spread = mixture.reshape(len(mixture), -1)
        projected = spread @ flat
        power = (projected * spread).sum(1)
        agreement = projected.view(len(mixture), self.channels, self.candidates)
        return self._error(agreement.permute(1, 0, 2), power[None, :, None])

    def _error(self, agreement: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        gain = agreement / power.clamp_min(1e-30) if self.affine else torch.ones_like(agreement)
        error = self.energy[:, None, None] - 2 * gain * agreement + gain.square() * power
        return error, gain


def fit_clusters(
    kernel: ShiftKernel, count: int, shift_scope: ShiftScope, rounds: int = _ROUNDS
) -> ClusterFit:
    """Choose ``count`` intrinsic channels and fit their filters to all channels they serve.

    k-medoids on the errors between channels, then alternately the best source and shift for every
    ghost and the best filter for every cluster.
    """
    pairwise = kernel.pairwise_error()
    allowed = _allowed_shifts(pairwise, kernel, shift_scope)
    own = pairwise[:, :, kernel.candidates // 2].diagonal()
    best = pairwise[:, :, allowed].amin(2)
    # What no filter reaches is no reason to prefer one source to another.
    intrinsic = medoids(best - own[:, None], count)
    is_ghost = torch.ones(kernel.channels, dtype=torch.bool)
    is_ghost[intrinsic] = False
    ghosts = torch.nonzero(is_ghost).flatten()
    mixture = _mixture(kernel, intrinsic, ghosts, None)
    choice: tuple[Tensor, Tensor, Tensor] | None = None
    last = float("inf")
    for _ in range(rounds):
        error, gain = kernel.served_error(mixture)
        choice, total = _choose(error, gain, ghosts, allowed)
        total += float(error[intrinsic, torch.arange(count), kernel.candidates // 2].sum())
        mixture = _mixture(kernel, intrinsic, ghosts, choice)
        if not total < last * (1 - 1e-5):
            break
        last = total
    assert choice is not None
    source, shift, gain = choice
    return ClusterFit(intrinsic, ghosts, source, shift, gain, kernel.filters(mixture), total)


def _allowed_shifts(pairwise: Tensor, kernel: ShiftKernel, scope: ShiftScope) -> Tensor:
    everything = torch.arange(kernel.candidates)
    if scope == "channel":
        return everything
    nearest = pairwise.clone()
    nearest[torch.arange(kernel.channels), torch.arange(kernel.channels)] = float("inf")
    return nearest.amin(1).sum(0).argmin().view(1)


def _choose(
    error: Tensor, gain: Tensor, ghosts: Tensor, allowed: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    options = error[ghosts][:, :, allowed].flatten(1)
    least, index = options.min(1)
    source = index // len(allowed)
    shift = allowed[index % len(allowed)]
    return (source, shift, gain[ghosts, source, shift]), float(least.sum())


def _mixture(
    kernel: ShiftKernel,
    intrinsic: Tensor,
    ghosts: Tensor,
    choice: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    count = len(intrinsic)
    mixture = torch.zeros(count, kernel.channels, kernel.candidates, dtype=torch.float64)
    mixture[torch.arange(count), intrinsic, kernel.candidates // 2] = 1
    total = torch.ones(count, dtype=torch.float64)
    if choice is not None:
        source, shift, gain = choice
        mixture[source, ghosts, shift] = gain
        total.index_add_(0, source, gain.square())
    return mixture / total[:, None, None]


def factorise(gram: Tensor, *, gains: bool = False) -> Tensor:
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
