"""Networks that conversion is tested on."""

import torch
from ghostsr_ext.nn import FusedConv2d
from torch import Tensor, nn
from torch.nn import functional


class UnseenNetwork(nn.Module):
    """A network that the package knows nothing of, with all that user networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 16, 5, padding=2, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.recursive = nn.Conv2d(16, 16, 3, padding=1)
        self.again = self.recursive
        self.fusion = nn.Conv2d(32, 16, 1)
        self.forgotten = nn.Conv2d(16, 16, 3)
        self.single = nn.Conv2d(16, 1, 3, padding=1)
        self.enlarging = nn.Conv2d(17, 64, 3, padding=1, padding_mode="reflect")
        self.exit = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.entry(image).relu_()
        skip = features
        features = self.grouped(self.wide(features).relu()) + skip
        features = self.again(self.recursive(features).relu()) + features
        features = self.fusion(torch.cat([features, skip], dim=1))
        features = torch.cat([features, self.single(features)], dim=1)
        return self.exit(functional.pixel_shuffle(self.enlarging(features), 2))


def plant_shifts(layer: nn.Conv2d) -> None:
    """Make the upper half of a 5x5 layer's channels moved copies of the lower half's.

    The filters of the lower half are zero along their edges, so that moving them by a pixel loses
    nothing.
    """
    assert layer.kernel_size == (5, 5)
    with torch.no_grad():
        half = layer.out_channels // 2
        layer.weight[:, :, [0, -1], :] = 0
        layer.weight[:, :, :, [0, -1]] = 0
        for channel in range(half):
            moved = (channel % 3 - 1, channel // 3 % 3 - 1)
            layer.weight[half + channel] = layer.weight[channel].roll(moved, dims=(1, 2))


class PlantedNetwork(nn.Module):
    """A network whose middle layer is a ghost layer in all but form."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.entry = nn.Conv2d(2, 6, 3, padding=1)
        self.middle = (
            FusedConv2d(6, 12, 5, padding=2, bias=False, activation="relu")
            if fused
            else nn.Conv2d(6, 12, 5, padding=2, bias=False)
        )
        self.exit = nn.Conv2d(12, 2, 3, padding=1)
        plant_shifts(self.middle)

    def forward(self, image: Tensor) -> Tensor:
        return self.exit(self.middle(self.entry(image)))
