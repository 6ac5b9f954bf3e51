import torch
from ghostsr_ext.models import SRModel
from torch import nn


class Enlarger(SRModel):
    """Filters each channel, adds ``offset`` and repeats each pixel."""

    def __init__(self, *, offset=0.0, kernel=None, **declared):
        super().__init__(config={}, **{"scales": (2, 3), "value_range": 255.0, **declared})
        size = 1 if kernel is None else kernel.shape[-1]
        self.conv = nn.Conv2d(
            self.channels, self.channels, size, padding=size // 2, groups=self.channels
        )
        nn.init.ones_(self.conv.weight)
        if kernel is not None:
            self.conv.weight.data[:] = kernel
        nn.init.constant_(self.conv.bias, offset)

    def upscale(self, image, scale):
        image = self.conv(image)
        growth = 1 if self.input_upscaled else scale
        return image.repeat_interleave(growth, 2).repeat_interleave(growth, 3)


def lopsided_kernel():
    """A 5x5 filter without any symmetry, whose values sum to about 1."""
    return torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(1)) / 12
