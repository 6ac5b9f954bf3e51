"""Tiles against whole pictures, for published networks and a ghost network made of each."""

from functools import cache

import numpy as np
import pytest
import torch
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.imaging import read_image
from ghostsr_ext.inference import Upscaler

WEIGHTS = (
    "edsr_mobile_f32b5_x2",
    "edsr_mobile_f64b5_x2",
    "edsr_r8f64_x2",
    "carn_x2",
    "carn_m_x234",
    "rdn_c3d10g64_x2_idealo",
    "vdsr_twtygqyy",
)
SIZES = ((64, 96), (97, 61), (70, 45))
"""Rows and columns: whole tiles, primes, and neither."""


@cache
def read(weights, kind):
    network = load_model(weights)
    return network if kind == "dense" else convert(network)[0]


def differences(network, image, scale, dtype, tile):
    """Gray levels that tiles are off by, everywhere."""
    options = {"scale": scale, "dtype": dtype}
    whole = Upscaler(network, tile=None, **options)(image).astype(int)
    return np.abs(Upscaler(network, tile=tile, **options)(image) - whole)


def assert_close(network, image, scale, tile):
    found = differences(network, image, scale, torch.float32, tile)
    assert found.max() <= 1
    assert (found > 0).mean() < 1e-3


def assert_equal(network, image, scale, tile):
    # In float64 no kernel works on blocks of pixels, so nothing depends on where they lie.
    assert not differences(network, image, scale, torch.float64, tile).any()


@pytest.mark.parametrize("kind", ["dense", "ghost"])
@pytest.mark.parametrize("name", WEIGHTS[:3])
def test_tiles_equal_the_whole_picture(data_dir, name, kind):
    network = read(data_dir / f"weights/{name}.pth", kind)
    image = read_image(data_dir / "Set5/LR_bicubic/X2/headx2.png")

    assert_close(network, image[:53, :47], network.scale, tile=32)
    assert_equal(network, image[:53, :47], network.scale, tile=32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "ghost"])
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
def test_tiles_equal_the_whole_picture_at_every_scale(data_dir, name, kind, size):
    network = read(data_dir / f"weights/{name}.pth", kind)
    image = read_image(data_dir / "Set5/LR_bicubic/X2/headx2.png")[: size[0], : size[1]]

    for scale in network.scales:
        for tile in (32, 48) if size == SIZES[1] else (32,):
            assert_close(network, image, scale, tile)
        # It takes the largest networks long, so it is done at one size, with few columns.
        if size == SIZES[-1]:
            assert_equal(network, image[:, :34], scale, tile=32)
