"""Batches of patches, each a function of the seed and its number alone.

Nothing is remembered between batches, so the position in the data is one number: a resumed run, a
run with other workers and a run on several processes see the same patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ghostsr_ext.imaging import imresize, luma
from ghostsr_ext.training.data.store import PictureStore

# Pixels of the small picture that bicubic enlargement looks at beyond the patch.
_ENLARGEMENT_MARGIN = 4


@dataclass(frozen=True)
class Batch:
    """Patches of one scale.

    Attributes:
        inputs: What the network is given, [n, C, h, w] in 0..1, channels_last.
        targets: The originals, [n, C, scale * h, scale * w] in 0..1, channels_last.
        scale: How many times the targets are larger than the small pictures.
    """

    inputs: Tensor
    targets: Tensor
    scale: int

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory."""
        return Batch(self.inputs.pin_memory(), self.targets.pin_memory(), self.scale)


@dataclass(frozen=True)
class BatchPlan:
    """How patches are drawn.

    Attributes:
        seed: Seed of the run.
        batch_size: Patches of a step over all processes.
        accumulation: Parts that a process takes its share in.
        rank: Number of this process.
        world_size: Number of processes.
        patch: Side in pixels of the small picture.
        augment: Whether patches are flipped and turned.
        recolor: Whether two thirds of the patches have their color channels in a random order,
            half of those as negatives.
        sampling: "uniform" over pictures, or by "area".
        candidates: Positions that are drawn in a picture for each patch; the patch of most detail
            is taken.
        color: "rgb" or "y".
        enlarged: Whether the network wants bicubically enlarged patches.
    """

    seed: int
    batch_size: int
    accumulation: int = 1
    rank: int = 0
    world_size: int = 1
    patch: int = 48
    augment: bool = True
    recolor: bool = False
    sampling: Literal["uniform", "area"] = "uniform"
    candidates: int = 1
    color: Literal["rgb", "y"] = "rgb"
    enlarged: bool = False

    @property
    def part_size(self) -> int:
        """Patches of one part of the share of one process."""
        return self.batch_size // (self.world_size * self.accumulation)


@dataclass(frozen=True)
class _Colors:
    """An order of color channels, and whether the picture is its negative."""

    order: tuple[int, ...] | None
    negative: bool = False

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels [H, W, 3] in these colors."""
        if self.order is None:
            return pixels
        moved: NDArray[np.uint8] = pixels[..., list(self.order)]
        return 255 - moved if self.negative else moved


_AS_THEY_ARE = _Colors(None)


class PatchBatches(Dataset[Batch]):
    """Batches by number: part p of step s of this process is ``[s * accumulation + p]``.

    Args:
        stores: Decoded pictures, one store a scale. A step is of one scale, drawn at random.
        plan: How patches are drawn.
    """

    def __init__(self, stores: list[PictureStore], plan: BatchPlan) -> None:
        self._stores = stores
        self._plan = plan
        self._cumulative = [_cumulative(store, plan.sampling) for store in stores]

    def __getitem__(self, number: int) -> Batch:
        """Cut the patches of one part of a step."""
        plan = self._plan
        step, part = divmod(number, plan.accumulation)
        choice = int(_generator(plan.seed, step).integers(len(self._stores)))
        first = (plan.rank * plan.accumulation + part) * plan.part_size
        patches = [
            self._patch(choice, _generator(plan.seed, step, sample))
            for sample in range(first, first + plan.part_size)
        ]
        inputs = np.stack([low for low, _ in patches])
        targets = np.stack([high for _, high in patches])
        return Batch(
            torch.from_numpy(inputs).permute(0, 3, 1, 2),
            torch.from_numpy(targets).permute(0, 3, 1, 2),
            self._stores[choice].scale,
        )

    def _patch(
        self, choice: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        store, cumulative, side = self._stores[choice], self._cumulative[choice], self._plan.patch
        scale = store.scale
        index = int(np.searchsorted(cumulative, generator.random(), side="right"))
        small = store.low(index)
        top, left = self._position(small, generator)
        turn = int(generator.integers(8)) if self._plan.augment else 0
        colors = _drawn_colors(generator) if self._plan.recolor else _AS_THEY_ARE
        low = self._input(small, top, left, scale, colors)
        high = colors.of(
            store.high(index)[
                top * scale : (top + side) * scale, left * scale : (left + side) * scale
            ]
        )
        target = luma(high)[..., None] if self._plan.color == "y" else high
        return _normalized(_turned(low, turn)), _normalized(_turned(target, turn))

    def _position(
        self, small: NDArray[np.uint8], generator: np.random.Generator
    ) -> tuple[int, int]:
        """Draw positions, and return the one whose patch has most detail."""
        side = self._plan.patch
        ends = np.array(small.shape[:2]) - side + 1
        drawn = [
            (int(generator.integers(ends[0])), int(generator.integers(ends[1])))
            for _ in range(self._plan.candidates)
        ]
        if len(drawn) == 1:
            return drawn[0]
        return max(drawn, key=lambda at: detail(small[at[0] :, at[1] :][:side, :side]))

    def _input(
        self, small: NDArray[np.uint8], top: int, left: int, scale: int, colors: _Colors
    ) -> NDArray[np.generic]:
        side = self._plan.patch
        if not self._plan.enlarged:
            crop = colors.of(small[top : top + side, left : left + side])
            return luma(crop)[..., None] if self._plan.color == "y" else crop
        above, before = max(0, top - _ENLARGEMENT_MARGIN), max(0, left - _ENLARGEMENT_MARGIN)
        wide = colors.of(
            small[
                above : top + side + _ENLARGEMENT_MARGIN, before : left + side + _ENLARGEMENT_MARGIN
            ]
        )
        values = luma(wide)[..., None] if self._plan.color == "y" else wide.astype(np.float64)
        large = imresize(values, scale)
        top, left = (top - above) * scale, (left - before) * scale
        return large[top : top + side * scale, left : left + side * scale]


def _drawn_colors(generator: np.random.Generator) -> _Colors:
    kind = int(generator.integers(3))
    if kind == 0:
        return _AS_THEY_ARE
    return _Colors(tuple(int(channel) for channel in generator.permutation(3)), kind == 2)


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _cumulative(store: PictureStore, sampling: str) -> NDArray[np.float64]:
    areas = np.array([pair.rows * pair.columns for pair in store.pairs], dtype=np.float64)
    weights = areas if sampling == "area" else np.ones_like(areas)
    total = np.cumsum(weights)
    # The last entry is 1 exactly, which no draw reaches.
    result: NDArray[np.float64] = total / total[-1]
    return result


def detail(patch: NDArray[np.uint8]) -> float:
    """Return how much there is to see in a picture [H, W, 3].

    It is the mean squared difference of neighbours in the green channel, down and across.
    """
    green = patch[..., 1].astype(np.float32)
    return float(np.square(np.diff(green, axis=0)).mean() + np.square(np.diff(green)).mean())


def _turned(patch: NDArray[np.generic], turn: int) -> NDArray[np.generic]:
    flipped = patch[:, ::-1] if turn >= 4 else patch
    return np.rot90(flipped, turn % 4)


def _normalized(patch: NDArray[np.generic]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.ascontiguousarray(patch).astype(np.float32)
    values /= np.float32(255)
    return values
