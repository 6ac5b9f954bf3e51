"""The networks in plain torch, with the module names of the code that published weights came with.

They are the oracle twice: their outputs for the networks, their state dicts for the file readers.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def conv(in_channels: int, out_channels: int, size: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2, **options)


def mean_conv(mean: Sequence[float], sign: int) -> nn.Conv2d:
    shift = nn.Conv2d(3, 3, 1)
    shift.weight.data = torch.eye(3).view(3, 3, 1, 1)
    shift.bias.data = sign * torch.tensor(mean)
    return shift


def shuffle_stages(features: int, scale: int, **options: object) -> list[nn.Module]:
    steps = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
    stages: list[nn.Module] = []
    for step in steps:
        stages += [conv(features, features * step**2, **options), nn.PixelShuffle(step)]
    return stages


class ResidualBody(nn.Module):
    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(features, features), nn.ReLU(), conv(features, features))
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual_scale * self.body(x)


class EdsrPytorch(nn.Module):
    def __init__(
        self,
        scale: int,
        *,
        features: int = 8,
        blocks: int = 2,
        residual_scale: float = 1.0,
        mean: Sequence[float] | None = None,
        direct: bool = False,
    ) -> None:
        super().__init__()
        if mean is not None:
            self.sub_mean, self.add_mean = mean_conv(mean, -1), mean_conv(mean, 1)
        self.head = nn.Sequential(conv(3, features))
        body = [ResidualBody(features, residual_scale) for _ in range(blocks)]
        self.body = nn.Sequential(*body, conv(features, features))
        if direct:
            self.tail = nn.Sequential(conv(features, 3 * scale**2), nn.PixelShuffle(scale))
        else:
            upsampler = nn.Sequential(*shuffle_stages(features, scale))
            self.tail = nn.Sequential(upsampler, conv(features, 3))

    def forward(self, x: Tensor) -> Tensor:
        shifted = hasattr(self, "sub_mean")
        head = self.head(self.sub_mean(x) if shifted else x)
        y = self.tail(self.body(head) + head)
        return self.add_mean(y) if shifted else y


class BasicsrBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(features, features), conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


class BasicsrEdsr(nn.Module):
    """Takes pictures in 0..1."""

    def __init__(self, scale: int, *, features: int = 8, blocks: int = 2) -> None:
        super().__init__()
        self.conv_first = conv(3, features)
        self.body = nn.Sequential(*[BasicsrBlock(features) for _ in range(blocks)])
        self.conv_after_body = conv(features, features)
        self.upsample = nn.Sequential(*shuffle_stages(features, scale))
        self.conv_last = conv(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.new_tensor(DIV2K_MEAN).view(1, 3, 1, 1)
        head = self.conv_first((x - mean) * 255)
        y = self.conv_last(self.upsample(self.conv_after_body(self.body(head)) + head))
        return y / 255 + mean


class CarnResidual(nn.Module):
    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            conv(features, features, groups=groups),
            nn.ReLU(),
            conv(features, features, groups=groups),
        ]
        if groups > 1:
            layers += [nn.ReLU(), conv(features, features, 1)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


class CarnFusion(nn.Module):
    def __init__(self, in_channels: int, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(in_channels, features, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class CarnCascade(nn.Module):
    def __init__(self, units: list[nn.Module], features: int) -> None:
        super().__init__()
        self.recursive = len(units) == 1
        for i, unit in enumerate(units):
            self.add_module(f"b{i + 1}", unit)
        for i in range(3):
            self.add_module(f"c{i + 1}", CarnFusion((i + 2) * features, features))

    def cascade(self, x: Tensor) -> Tensor:
        gathered = output = x
        for i in (1, 2, 3):
            unit = self.get_submodule("b1" if self.recursive else f"b{i}")
            gathered = torch.cat([gathered, unit(output)], 1)
            output = self.get_submodule(f"c{i}")(gathered)
        return output

    def forward(self, x: Tensor) -> Tensor:
        return self.cascade(x)


class CarnHead(nn.Module):
    def __init__(self, features: int, scale: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in shuffle_stages(features, scale, groups=groups):
            layers += [layer, nn.ReLU()] if isinstance(layer, nn.Conv2d) else [layer]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class CarnPytorch(CarnCascade):
    """CARN, or CARN-M with groups; heads are named ``up2``, ``up3``, ... or ``head_names``."""

    def __init__(
        self,
        scales: Sequence[int],
        *,
        features: int = 8,
        groups: int = 1,
        recursive: bool = False,
        mean: Sequence[float] = DIV2K_MEAN,
        head_names: Sequence[str] | None = None,
    ) -> None:
        def block() -> nn.Module:
            units = [CarnResidual(features, groups) for _ in range(1 if recursive else 3)]
            return CarnCascade(units, features)

        super().__init__([block() for _ in range(3)], features)
        self.sub_mean, self.add_mean = nn.Module(), nn.Module()
        self.sub_mean.shifter, self.add_mean.shifter = mean_conv(mean, -1), mean_conv(mean, 1)
        self.entry, self.exit = conv(3, features), conv(features, 3)
        names = head_names or [f"up{scale}" for scale in scales]
        self.heads = dict(zip(scales, names, strict=True))
        self.upsample = nn.Module()
        for scale, name in self.heads.items():
            self.upsample.add_module(name, CarnHead(features, scale, groups))

    def forward(self, x: Tensor, scale: int) -> Tensor:
        features = self.cascade(self.entry(self.sub_mean.shifter(x)))
        head = self.upsample.get_submodule(self.heads[scale])
        return self.add_mean.shifter(self.exit(head(features)))


class DenseLayer(nn.Module):
    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(x).relu()], 1)


class DenseBlock(nn.Module):
    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        dense = [DenseLayer(features + i * growth, growth) for i in range(layers)]
        self.layers = nn.Sequential(*dense)
        self.lff = conv(features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lff(self.layers(x))


class Yjn870Rdn(nn.Module):
    def __init__(
        self, scale: int, *, features: int = 6, growth: int = 6, blocks: int = 3, layers: int = 2
    ) -> None:
        super().__init__()
        self.sfe1, self.sfe2 = conv(3, features), conv(features, features)
        self.rdbs = nn.ModuleList([DenseBlock(features, growth, layers) for _ in range(blocks)])
        self.gff = nn.Sequential(conv(blocks * features, features, 1), conv(features, features))
        self.upscale = nn.Sequential(*shuffle_stages(features, scale))
        self.output = conv(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.sfe1(x)
        y, collected = self.sfe2(shallow), []
        for block in self.rdbs:
            y = block(y)
            collected.append(y)
        return self.output(self.upscale(self.gff(torch.cat(collected, 1)) + shallow))


class IdealoRdn(nn.Module):
    def __init__(
        self, scale: int, *, features: int = 6, growth: int = 4, blocks: int = 2, layers: int = 3
    ) -> None:
        super().__init__()
        self.scale, self.blocks, self.layer_count = scale, blocks, layers
        self.F_m1, self.F_0 = conv(3, features), conv(features, features)
        for d in range(1, blocks + 1):
            for c in range(1, layers + 1):
                self.add_module(f"F_{d}_{c}", conv(features + (c - 1) * growth, growth))
            self.add_module(f"LFF_{d}", conv(features + layers * growth, features, 1))
        self.GFF_1, self.GFF_2 = conv(blocks * features, features, 1), conv(features, features)
        self.UPN1, self.UPN2 = conv(features, 64, 5), conv(64, 32)
        self.UPN3, self.SR = conv(32, 3 * scale**2), conv(3 * scale**2, 3)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.F_m1(x)
        y, collected = self.F_0(shallow), []
        for d in range(1, self.blocks + 1):
            dense = y
            for c in range(1, self.layer_count + 1):
                grown = self.get_submodule(f"F_{d}_{c}")(dense).relu()
                dense = torch.cat([dense, grown], 1)
            y = y + self.get_submodule(f"LFF_{d}")(dense)
            collected.append(y)
        y = self.GFF_2(self.GFF_1(torch.cat(collected, 1))) + shallow
        y = self.UPN3(self.UPN2(self.UPN1(y).relu()).relu())
        return self.SR(functional.interpolate(y, scale_factor=self.scale, mode="nearest"))


class EdsrPytorchRdn(nn.Module):
    """The RDN that comes with EDSR-PyTorch; only its keys matter here."""

    def __init__(
        self, scale: int, *, features: int = 6, growth: int = 4, blocks: int = 2, layers: int = 3
    ) -> None:
        super().__init__()
        self.SFENet1, self.SFENet2 = conv(3, features), conv(features, features)
        self.RDBs = nn.ModuleList()
        for _ in range(blocks):
            block = nn.Module()
            block.convs = nn.Sequential()
            for c in range(layers):
                layer = nn.Module()
                layer.conv = nn.Sequential(conv(features + c * growth, growth), nn.ReLU())
                block.convs.append(layer)
            block.LFF = conv(features + layers * growth, features, 1)
            self.RDBs.append(block)
        self.GFF = nn.Sequential(conv(blocks * features, features, 1), conv(features, features))
        self.UPNet = nn.Sequential(*shuffle_stages(features, scale), conv(features, 3))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.SFENet1(x)
        y, collected = self.SFENet2(shallow), []
        for block in self.RDBs:
            dense = y
            for layer in block.convs:
                dense = torch.cat([dense, layer.conv(dense)], 1)
            y = y + block.LFF(dense)
            collected.append(y)
        return self.UPNet(self.GFF(torch.cat(collected, 1)) + shallow)


class TwtygqyyVdsr(nn.Module):
    def __init__(self, *, features: int = 6, middle: int = 3) -> None:
        super().__init__()
        self.input, self.output = conv(1, features, bias=False), conv(features, 1, bias=False)
        self.residual_layer = nn.Sequential()
        for _ in range(middle):
            layer = nn.Module()
            layer.conv = conv(features, features, bias=False)
            self.residual_layer.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        y = self.input(x).relu()
        for layer in self.residual_layer:
            y = layer.conv(y).relu()
        return x + self.output(y)


class NumberedVdsr(nn.Module):
    def __init__(self, *, features: int = 6, layers: int = 5, channels: int = 1) -> None:
        super().__init__()
        widths = [channels, *[features] * (layers - 1), channels]
        for i in range(layers):
            self.add_module(f"conv{i + 1}", conv(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.children()
        y = x
        for layer in inner:
            y = layer(y).relu()
        return x + last(y)


class EsrganDenseBlock(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for i in range(5):
            outputs = growth if i < 4 else features
            self.add_module(f"conv{i + 1}", conv(features + i * growth, outputs))

    def forward(self, x: Tensor) -> Tensor:
        gathered = [x]
        for i in range(4):
            layer = self.get_submodule(f"conv{i + 1}")
            gathered.append(functional.leaky_relu(layer(torch.cat(gathered, 1)), 0.2))
        return self.conv5(torch.cat(gathered, 1)) * 0.2 + x


class EsrganBlock(nn.Module):
    """Three dense blocks; ``name`` is ``rdb`` in Real-ESRGAN and ``RDB`` in BSRGAN."""

    def __init__(self, features: int, growth: int, name: str) -> None:
        super().__init__()
        for i in (1, 2, 3):
            self.add_module(f"{name}{i}", EsrganDenseBlock(features, growth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.children():
            y = block(y)
        return y * 0.2 + x


class RealEsrgan(nn.Module):
    """Real-ESRGAN's RRDBNet: always enlarges by 4, after a pixel unshuffle at x1 and x2."""

    NAMES = ("body", "conv_body", "conv_up", "conv_hr", "rdb")

    def __init__(self, scale: int, *, features: int = 8, growth: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.unshuffle = 4 // scale
        self._build(3 * self.unshuffle**2, 2, features, growth, blocks)

    def _build(self, channels: int, steps: int, features: int, growth: int, blocks: int) -> None:
        body, body_end, enlarged, before_last, dense = self.NAMES
        self.steps = steps
        self.conv_first = conv(channels, features)
        trunk = [EsrganBlock(features, growth, dense) for _ in range(blocks)]
        self.add_module(body, nn.Sequential(*trunk))
        self.add_module(body_end, conv(features, features))
        for i in range(steps):
            self.add_module(f"{enlarged}{i + 1}", conv(features, features))
        self.add_module(before_last, conv(features, features))
        self.conv_last = conv(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        body, body_end, enlarged, before_last, _ = self.NAMES
        head = self.conv_first(functional.pixel_unshuffle(x, self.unshuffle))
        y = head + self.get_submodule(body_end)(self.get_submodule(body)(head))
        for i in range(self.steps):
            y = functional.interpolate(y, scale_factor=2, mode="nearest")
            y = functional.leaky_relu(self.get_submodule(f"{enlarged}{i + 1}")(y), 0.2)
        return self.conv_last(functional.leaky_relu(self.get_submodule(before_last)(y), 0.2))


class Bsrgan(RealEsrgan):
    """BSRGAN's RRDBNet: no unshuffle, one enlargement less at x2."""

    NAMES = ("RRDB_trunk", "trunk_conv", "upconv", "HRconv", "RDB")

    def __init__(self, scale: int, *, features: int = 8, growth: int = 4, blocks: int = 2) -> None:
        nn.Module.__init__(self)
        self.unshuffle = 1
        self._build(3, scale.bit_length() - 1, features, growth, blocks)


class FirstEsrganDenseBlock(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for i in range(5):
            outputs = growth if i < 4 else features
            layers: list[nn.Module] = [conv(features + i * growth, outputs)]
            if i < 4:
                layers.append(nn.LeakyReLU(0.2))
            self.add_module(f"conv{i + 1}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        gathered = [x]
        for layer in self.children():
            gathered.append(layer(torch.cat(gathered, 1)))
        return gathered[-1] * 0.2 + x


class FirstEsrganBlock(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for i in (1, 2, 3):
            self.add_module(f"RDB{i}", FirstEsrganDenseBlock(features, growth))

    def forward(self, x: Tensor) -> Tensor:
        return self.RDB3(self.RDB2(self.RDB1(x))) * 0.2 + x


class Shortcut(nn.Module):
    def __init__(self, sub: nn.Module) -> None:
        super().__init__()
        self.sub = sub

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sub(x)


class FirstEsrgan(nn.Module):
    """The RRDBNet of the first code of ESRGAN, a row of numbered layers."""

    def __init__(self, scale: int, *, features: int = 8, growth: int = 4, blocks: int = 2) -> None:
        super().__init__()
        trunk = [FirstEsrganBlock(features, growth) for _ in range(blocks)]
        layers: list[nn.Module] = [
            conv(3, features),
            Shortcut(nn.Sequential(*trunk, conv(features, features))),
        ]
        for _ in range(scale.bit_length() - 1):
            layers += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                conv(features, features),
                nn.LeakyReLU(0.2),
            ]
        layers += [conv(features, features), nn.LeakyReLU(0.2), conv(features, 3)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class RealEsrganCompact(nn.Module):
    """Real-ESRGAN's SRVGGNetCompact; ``activation`` makes what follows each convolution."""

    def __init__(
        self,
        scale: int,
        *,
        features: int = 8,
        layers: int = 3,
        activation: Callable[[int], nn.Module] = nn.PReLU,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.ModuleList()
        for i in range(layers + 1):
            self.body += [conv(features if i else 3, features), activation(features)]
        self.body.append(conv(features, 3 * scale**2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.body:
            y = layer(y)
        enlarged = functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return functional.pixel_shuffle(y, self.scale) + enlarged
