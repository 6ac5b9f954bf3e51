"""Enlarging pictures in memory with one network."""

from __future__ import annotations

import copy
import functools
import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.devices import floating_dtype, usable_device
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.fingerprints import network_fingerprint
from ghostsr_ext.imaging import (
    Picture,
    imresize,
    luma,
    picture_from_pil,
    picture_to_pil,
    rgb_to_ycbcr,
    ycbcr_to_rgb,
)
from ghostsr_ext.inference.cuda_graphs import device_recorder
from ghostsr_ext.inference.graphs import RecordedNetwork
from ghostsr_ext.inference.memory import (
    SMALLEST_TILE,
    bytes_per_pixel,
    default_budget,
    is_out_of_memory,
)
from ghostsr_ext.inference.pixels import (
    PEAK,
    check,
    from_array,
    gray,
    to_array,
    to_pixels,
    to_values,
    white_of,
)
from ghostsr_ext.inference.symmetries import SYMMETRIES, turn, turn_back
from ghostsr_ext.inference.tiling import GRID, Span, span, spans
from ghostsr_ext.models import SRModel
from ghostsr_ext.models.locality import locality
from ghostsr_ext.nn import freeze_shifts

# Rows of tiles of a result that exist at once: being computed, waiting and being written.
_LIVING_BANDS = 5

# Of a picture that shows how far a network of the whole map differs in tiles.
_TEST_TILE = 32
# How much such a network reads around a tile at most.
_LARGEST_MARGIN = 64

# Of a budget that the user gave, the part in which work may be kept recorded.
_PART_FOR_RECORDINGS = 4

# Pixels on either side of one that its bicubically enlarged pixels depend on.
_BICUBIC_MARGIN = 3


class Upscaler:
    """A network that enlarges pictures, whole or in tiles.

    The network is copied, so that the one given is neither changed nor held. Calls from several
    threads at once are safe. An upscaler can be copied and pickled, for worker processes, with its
    network, but without its recordings.

    A network that works on luma gets the luma of the picture; its colors are enlarged bicubically.
    Opacity is always enlarged bicubically.

    Args:
        model: A network, or a file that ``load_model`` reads, or the name of a default model
            (``"x2"``).
        scale: One of the network's scales; None for its only or smallest one.
        device: Where to compute, ``"auto"`` for a GPU if there is one; None for where the network
            is.
        dtype: What to compute in; None for the network's own type.
        self_ensemble: Whether to average over the eight flips and quarter turns (EDSR+), which
            takes eight times as long and is usually 0.1 dB better.
        tile: Side of the tiles in pixels of the small picture, from 1; ``"auto"`` for whole
            pictures where they fit into ``memory_budget`` and the largest tiles that do where not;
            None for whole pictures always. Tiles overlap by the network's receptive field, so that
            there are no seams: values differ from those of the whole picture by rounding at most.
            A network that looks at the whole map is computed whole with ``"auto"``, and in tiles
            only where their side is given, with a warning that says how far a test picture differs.
        memory_budget: Bytes that feature maps may take with ``tile="auto"``, a quarter of them for
            recordings if there are any; None for four fifths of what is free on a CUDA device, and
            512 MiB elsewhere.
        replay: Whether to record the work for an input whose size comes again, as tiles and the
            frames of videos do, as a CUDA graph and to replay it from the third time on. Small
            networks on small inputs have taken 0.4 of their time, large ones all of it; results are
            the same. Only for processes in which no other thread uses the device:
            while a size is recorded, torch fails in another thread that draws random numbers on the
            device or waits for the whole of it (``torch.cuda.synchronize``), and such a wait spoils
            the recording. Networks that are not ``capturable``, or whose feature maps take more
            than a thirty-second of the device's memory, are not recorded. If memory is exhausted,
            recordings are given up before tiles become smaller. Ignored where the network is not
            on CUDA.

    Attributes:
        scale: How many times pictures are enlarged.
        device: Where the network runs.
        dtype: The type that it computes in.
        margin: How many pixels of the small picture tiles read on each side of what they deliver.
        whole_map_operators: What of the network looks at the whole map, by torch's names: pooling,
            attention, normalisation. Empty for most networks.

    Raises:
        InputError: The model cannot be read or does not serve the scale, the device cannot be used,
            or ``dtype``, ``tile`` or ``memory_budget`` is out of its domain.
    """

    def __init__(
        self,
        model: SRModel | str | os.PathLike[str],
        *,
        scale: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        self_ensemble: bool = False,
        tile: int | Literal["auto"] | None = "auto",
        memory_budget: int | None = None,
        replay: bool = False,
    ) -> None:
        network = copy.deepcopy(model) if isinstance(model, SRModel) else load_model(model)
        self.scale = network.served_scale(scale)
        if tile is not None and tile != "auto" and (not isinstance(tile, int) or tile < 1):
            raise InputError(f"tile: {tile!r}; must be 1 or more, 'auto', or None for none")
        if memory_budget is not None and memory_budget < 1:
            raise InputError(f"memory_budget: {memory_budget}; must be 1 byte or more")
        device = None if device is None else usable_device(device)
        dtype = None if dtype is None else floating_dtype(dtype)
        freeze_shifts(network)
        self._network: SRModel = network.eval().to(  # type: ignore[call-overload]
            device=device, dtype=dtype, memory_format=torch.channels_last
        )
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._self_ensemble = self_ensemble
        self._tile = tile
        self._memory_budget = memory_budget
        # The network's input, over the small picture.
        self._enlarged = self.scale if network.input_upscaled else 1
        self._replay = replay
        self._add_memories()
        found = locality(self._network)
        self.whole_map_operators = found.operators
        radius = min(found.radius, _LARGEST_MARGIN) if found.operators else found.radius
        self.margin = -(-radius // self._enlarged)
        # Small pixels on which the network's own grid and the kernels' meet.
        self._grid = math.lcm(GRID, found.grid // math.gcd(found.grid, self._enlarged))
        if network.input_upscaled or network.color == "y":
            # Enlarged tiles are wrong near their cut edges, where bicubic interpolation mirrors.
            self.margin += _BICUBIC_MARGIN
        if self.whole_map_operators and isinstance(tile, int):
            warnings.warn(self._advice_on_tiles(tile), stacklevel=2)

    def _add_memories(self) -> None:
        """Add what is computed or recorded once and kept."""
        self._bytes_per_pixel = functools.cache(partial(bytes_per_pixel, self._network, self.scale))
        self._fingerprint = functools.cache(partial(network_fingerprint, self._network))
        replay = self._replay and self._network.capturable
        recorder = device_recorder(self.device) if replay else None
        self._recorded = None
        if recorder is not None:
            self._recorded = RecordedNetwork(
                partial(self._network, scale=self.scale), recorder, self._fits(recorder.budget)
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies have in common; each makes its own memories."""
        memories = ("_bytes_per_pixel", "_fingerprint", "_recorded")
        return {name: value for name, value in vars(self).items() if name not in memories}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy."""
        vars(self).update(state)
        self._add_memories()

    def recipe(self) -> dict[str, str]:
        """Return what decides the values of results, beside the picture, as short texts."""
        return {
            "model": self._fingerprint(),
            "scale": str(self.scale),
            "dtype": str(self.dtype).removeprefix("torch."),
            "self-ensemble": "yes" if self._self_ensemble else "no",
        }

    @overload
    def __call__(self, picture: NDArray[Any]) -> NDArray[Any]: ...

    @overload
    def __call__(self, picture: Image.Image) -> Image.Image: ...

    @overload
    def __call__(self, picture: Picture) -> Picture: ...

    def __call__(
        self, picture: NDArray[Any] | Image.Image | Picture
    ) -> NDArray[Any] | Image.Image | Picture:
        """Enlarge a picture.

        Args:
            picture: An array [H, W] (gray), [H, W, 3] (RGB) or [H, W, 4] (with opacity) of uint8,
                uint16, or float32 or float64 in 0..1; or a Pillow image; or a ``Picture``.

        Returns:
            What was given, ``scale`` times as large, of the same type: clipped, and rounded for
            whole numbers. A Pillow image keeps its color profile, and is upright.

        Raises:
            InputError: The picture has another shape, type or range.
            GhostsrError: The memory does not even suffice for small tiles, or the network's output
                is not finite.
        """
        if isinstance(picture, Image.Image):
            return picture_to_pil(self._whole(picture_from_pil(picture)))
        if isinstance(picture, Picture):
            return self._whole(picture)
        array = to_array(self._whole(from_array(picture)))
        # Joining arrays changes their byte order.
        return array.astype(picture.dtype, copy=False)

    def bands(self, picture: Picture) -> Iterator[Picture]:
        """Enlarge a picture piece by piece, in memory for one row of tiles.

        Args:
            picture: What to enlarge; its values may also be floats in 0..1.

        Yields:
            Full-width pieces of the result, from top to bottom.

        Raises:
            InputError: As for a call.
            GhostsrError: As for a call.
        """
        check(picture)
        white = white_of(picture.pixels.dtype)

        def finish(values: Tensor) -> NDArray[Any]:
            self._check_finite(values)
            pixels = to_pixels(values, picture.pixels.dtype)
            return gray(pixels) if picture.gray else pixels

        for band, pixels in self._bands(picture.pixels, white, finish):
            alpha = None
            if picture.alpha is not None:
                alpha = self._bicubic(picture.alpha, band)
                if alpha.dtype.kind == "f":
                    alpha = alpha.clip(0, 1).astype(picture.alpha.dtype)
            yield Picture(pixels, alpha, picture.gray, picture.icc_profile)

    def values(self, image: NDArray[Any], *, luma_only: bool = False) -> NDArray[np.float64]:
        """Enlarge a picture without rounding or clipping, for measuring.

        Args:
            image: RGB values [H, W, 3] in 0..255, of any numeric type.
            luma_only: Whether luma is enough where the network works on luma.

        Returns:
            RGB [scale * H, scale * W, 3] in 0..255, not clipped and not checked to be finite; or
            luma without the last axis if ``luma_only`` and the network works on luma.

        Raises:
            GhostsrError: The memory does not even suffice for small tiles.
        """
        bands = self._bands(image, PEAK, lambda values: values.cpu().numpy(), luma_only=luma_only)
        pieces = [values for _, values in bands]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _bands(
        self,
        image: NDArray[Any],
        white: float,
        finish: Callable[[Tensor], NDArray[Any]],
        *,
        luma_only: bool = False,
    ) -> Iterator[tuple[Span, NDArray[Any]]]:
        """Yield rows of tiles, each tile finished before the next one is computed."""
        rows, columns = image.shape[:2]
        side = self._first_side(image)
        top = 0
        while top < rows:
            band = span(top, rows, side, self.margin, self._grid)
            try:
                tiles = [
                    finish(self._tile_values(image, white, band, tile, luma_only=luma_only))
                    for tile in spans(columns, side, self.margin, self._grid)
                ]
                values = tiles[0] if len(tiles) == 1 else np.concatenate(tiles, axis=1)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._recorded is None or not self._recorded.release():
                    side = self._smaller_side(side, error)
                continue
            yield band, values
            top = band.stop

    def _first_side(self, image: NDArray[Any]) -> int:
        rows: int
        columns: int
        rows, columns = image.shape[:2]
        whole = max(rows, columns)
        if self._tile is None or (self._tile == "auto" and self.whole_map_operators):
            return whole
        if isinstance(self._tile, int):
            return self._tile
        budget = self._map_budget()
        pixels = int(budget / self._bytes_per_pixel())
        if rows * columns <= pixels:
            return whole
        row_bytes = columns * self.scale**2 * 3 * image.itemsize
        side = min(
            math.isqrt(pixels) - 2 * self.margin,
            budget // (_LIVING_BANDS * row_bytes),
        )
        return max(SMALLEST_TILE, side // GRID * GRID)

    def _map_budget(self) -> int:
        """Return the bytes that feature maps may take beside those of recordings."""
        if self._memory_budget is None:
            # Recordings that there are take what is free; others fit into what the budget leaves.
            return default_budget(self.device)
        if self._recorded is None:
            return self._memory_budget
        return self._memory_budget - self._memory_budget // _PART_FOR_RECORDINGS

    def _fits(self, budget: int) -> Callable[[Tensor], bool]:
        """Return what says whether the network's work for an input fits among the recordings."""
        if self._memory_budget is not None:
            budget = min(budget, self._memory_budget // _PART_FOR_RECORDINGS)
        # No reference to this object: it would be a cycle, and its memory be given back late.
        enlarged, needed = self._enlarged, self._bytes_per_pixel

        def fits(image: Tensor) -> bool:
            return image.shape[2] * image.shape[3] * needed() <= budget * enlarged**2

        return fits

    def _smaller_side(self, side: int, error: BaseException) -> int:
        """Answer an exhausted memory with smaller tiles, if tiles are allowed at all."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        is_whole = self._tile is None or (self._tile == "auto" and bool(self.whole_map_operators))
        if is_whole or side <= SMALLEST_TILE:
            advice = "pass a tile" if is_whole else f"tried tiles down to {side} pixels"
            if self.whole_map_operators:
                names = ", ".join(self.whole_map_operators)
                advice += f", which changes the result: {names} look at the whole map"
            raise GhostsrError(f"not enough memory on {self.device}; {advice}") from error
        return max(SMALLEST_TILE, side // 2 // GRID * GRID)

    def _advice_on_tiles(self, tile: int) -> str:
        """Measure how far tiles change the result of a test picture, and say it."""
        side = min(tile, _TEST_TILE)
        rng = np.random.default_rng(0)
        picture = PEAK * imresize(rng.random((6, 6, 3)), size=(3 * side, 3 * side)).clip(0, 1)
        self._tile = None
        whole = self.values(picture)
        self._tile = side
        difference = np.abs(self.values(picture) - whole).max()
        self._tile = tile
        return (
            f"tile {tile}: this network looks at the whole map "
            f"({', '.join(self.whole_map_operators)}), so tiles change its results; a test picture "
            f"of {3 * side}x{3 * side} in tiles of {side} differs by up to {difference:.2g} (of "
            "0..255) from the whole one"
        )

    def _whole(self, picture: Picture) -> Picture:
        bands = list(self.bands(picture))
        if len(bands) == 1:
            return bands[0]
        alphas = [band.alpha for band in bands if band.alpha is not None]
        return Picture(
            np.concatenate([band.pixels for band in bands]),
            np.concatenate(alphas) if alphas else None,
            picture.gray,
            picture.icc_profile,
        )

    def _check_finite(self, values: Tensor) -> None:
        # A sum takes no memory. It is finite only if all values are; sums of huge ones may not be.
        if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
            name = str(self.dtype).removeprefix("torch.")
            advice = "; compute in float32" if self.dtype == torch.float16 else ""
            raise GhostsrError(f"output: has NaN or infinite values (computed in {name}){advice}")

    def _bicubic(self, image: NDArray[Any], band: Span) -> NDArray[Any]:
        """Enlarge the delivered rows of a band."""
        rows = span(band.start, image.shape[0], band.stop - band.start, _BICUBIC_MARGIN)
        return imresize(image[rows.read], self.scale)[rows.kept(self.scale)]

    def _tile_values(
        self, image: NDArray[Any], white: float, band: Span, tile: Span, *, luma_only: bool
    ) -> Tensor:
        """Enlarge one tile: float64 [h, w, 3] in 0..255, or [h, w] for luma alone."""
        small = image[band.read, tile.read]
        kept = band.kept(self.scale), tile.kept(self.scale)
        if self._network.color == "rgb":
            return self._infer(self._input(small, white))[kept]
        values = _on_processor(small, white)
        output = self._infer(self._input_of_values(values))[kept]
        if luma_only:
            return output[..., 0]
        chroma = imresize(rgb_to_ycbcr(values)[..., 1:], self.scale)[kept]
        ycbcr = np.concatenate([output.cpu().numpy(), chroma], axis=2)
        return torch.from_numpy(ycbcr_to_rgb(ycbcr))

    def network_input(self, image: NDArray[Any]) -> Tensor:
        """Return what the network gets for a small picture, whole.

        Args:
            image: RGB values [H, W, 3] in 0..255.

        Returns:
            [1, C, h, w] in 0..``value_range``, on the network's device and of its type.
        """
        return self._input(image, PEAK)

    def _input(self, small: NDArray[Any], white: float) -> Tensor:
        if self._network.color == "rgb" and self._enlarged == 1:
            return self._in_range(to_values(small, white, self.device))
        return self._input_of_values(_on_processor(small, white))

    def _input_of_values(self, values: NDArray[np.float64]) -> Tensor:
        """Return what the network gets for values in 0..255."""
        if self._network.color == "y":
            values = luma(values)[..., None]
        if self._enlarged > 1:
            values = imresize(values, self.scale)
        return self._in_range(to_values(values, PEAK, self.device))

    def _in_range(self, values: Tensor) -> Tensor:
        """Return the network's input of values [H, W, C] in 0..255, which are overwritten."""
        unit = values.mul_(self._network.value_range / PEAK).permute(2, 0, 1)[None]
        return unit.to(self.dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def _infer(self, image: Tensor) -> Tensor:
        """Run the network, and return its output in float64 [h, w, C] in 0..255."""
        if self._self_ensemble:
            output = sum(
                turn_back(self._forward(turn(image, symmetry)), symmetry).double()
                for symmetry in SYMMETRIES
            ) / len(SYMMETRIES)
            assert isinstance(output, Tensor)
        else:
            # A copy even of float64, since a network may give back what it was given.
            output = self._forward(image).to(torch.float64, copy=True)
        if self._network.value_range != PEAK:
            output.mul_(PEAK / self._network.value_range)
        return output[0].permute(1, 2, 0)

    def _forward(self, image: Tensor) -> Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        if self._recorded is not None:
            return self._recorded(image)
        output: Tensor = self._network(image, self.scale)
        return output


def _on_processor(pixels: NDArray[Any], white: float) -> NDArray[np.float64]:
    values: NDArray[np.float64] = to_values(pixels, white, torch.device("cpu")).numpy()
    return values
