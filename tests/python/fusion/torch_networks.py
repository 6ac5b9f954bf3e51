"""The networks of the papers, written in torch's own layers as their authors did."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DenseBlock(nn.Module):
    """ESRGAN's residual dense block."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for number in range(5):
            width = growth if number < 4 else features
            layer = nn.Conv2d(features + number * growth, width, 3, padding=1)
            self.add_module(f"conv{number + 1}", layer)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat((x, x1), 1)))
        x3 = self.lrelu(self.conv3(torch.cat((x, x1, x2), 1)))
        x4 = self.lrelu(self.conv4(torch.cat((x, x1, x2, x3), 1)))
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return x5 * 0.2 + x


class RRDB(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class PlainRRDBNet(nn.Module):
    """Real-ESRGAN's generator at x4."""

    def __init__(self, features: int = 64, blocks: int = 6, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        feat = self.conv_first(x)
        feat = feat + self.conv_body(self.body(feat))
        feat = functional.interpolate(feat, scale_factor=2, mode="nearest")
        feat = self.lrelu(self.conv_up1(feat))
        feat = functional.interpolate(feat, scale_factor=2, mode="nearest")
        feat = self.lrelu(self.conv_up2(feat))
        return self.conv_last(self.lrelu(self.conv_hr(feat)))


class PlainCompact(nn.Module):
    """Real-ESRGAN's SRVGGNetCompact."""

    def __init__(self, features: int = 64, convolutions: int = 16, scale: int = 4) -> None:
        super().__init__()
        self.upscale = scale
        self.body = nn.ModuleList()
        self.body.append(nn.Conv2d(3, features, 3, 1, 1))
        self.body.append(nn.PReLU(num_parameters=features))
        for _ in range(convolutions):
            self.body.append(nn.Conv2d(features, features, 3, 1, 1))
            self.body.append(nn.PReLU(num_parameters=features))
        self.body.append(nn.Conv2d(features, 3 * scale * scale, 3, 1, 1))
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for layer in self.body:
            out = layer(out)
        out = self.upsampler(out)
        return out + functional.interpolate(x, scale_factor=self.upscale, mode="nearest")
