"""Networks that look at the whole map are computed whole, or in tiles that say so."""

import numpy as np
import pytest
import torch
from ghostsr_ext.errors import GhostsrError
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.models import SRModel
from torch import nn
from torch.nn import functional


class Pooling(SRModel):
    """Brightens by the mean of the whole picture."""

    def __init__(self, fails_above=10**9):
        super().__init__(config={}, scales=(2,), value_range=1.0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.fails_above = fails_above

    def upscale(self, image, scale):
        if image.shape[2] > self.fails_above:
            raise torch.OutOfMemoryError
        image = self.conv(image) + image.mean(dim=(2, 3), keepdim=True)
        return functional.interpolate(image, scale_factor=scale)


class Strided(SRModel):
    """Looks at blocks of six pixels, counted from the corner."""

    def __init__(self):
        super().__init__(config={}, scales=(1,), value_range=1.0, multiple=6)
        self.down = nn.Conv2d(3, 8, 6, stride=6)
        self.up = nn.ConvTranspose2d(8, 3, 6, stride=6)

    def upscale(self, image, scale):
        return image + self.up(self.down(image))


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def test_they_are_computed_whole_however_little_memory_there_should_be(picture):
    torch.manual_seed(0)
    network = Pooling()
    whole = Upscaler(network, tile=None)(picture)
    upscaler = Upscaler(network, memory_budget=1000)
    assert upscaler.whole_map_operators == ("mean",)
    assert np.array_equal(upscaler(picture), whole)


def test_tiles_that_are_asked_for_come_with_a_measured_warning(picture):
    torch.manual_seed(0)
    network = Pooling()
    with pytest.warns(UserWarning, match=r"looks at the whole map \(mean\).* differs by up to \d"):
        upscaler = Upscaler(network, tile=20)
    whole = Upscaler(network, tile=None)(picture)
    assert not np.array_equal(upscaler(picture), whole)


def test_exhausted_memory_says_what_tiles_would_change(picture):
    upscaler = Upscaler(Pooling(fails_above=65))
    with pytest.raises(GhostsrError, match="pass a tile, which changes the result: mean look"):
        upscaler(picture)


def test_tiles_begin_where_the_networks_blocks_begin(picture):
    torch.manual_seed(0)
    network = Strided()
    whole = Upscaler(network, tile=None)(picture)
    assert np.array_equal(Upscaler(network, tile=20)(picture), whole)
