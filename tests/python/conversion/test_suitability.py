"""Layers that stay dense because a ghost cannot be right there or saves nothing."""

import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import EDSR
from ghostsr_ext.nn import ghost_layers
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Channel attention: two convolutions on what is pooled to one pixel."""

    def __init__(self, features=16):
        super().__init__()
        self.squeeze = nn.Conv2d(features, features // 2, 1)
        self.excite = nn.Conv2d(features // 2, features, 1)

    def forward(self, features):
        pooled = features.mean(dim=(2, 3), keepdim=True)
        return features * torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))


class AttentionNetwork(nn.Module):
    def __init__(self, features=16):
        super().__init__()
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.attention = Attention(features)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        self.exit = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, image):
        features = self.entry(image)
        features = features + self.attention(torch.relu(self.first(features)))
        return self.exit(torch.relu(self.second(features)) + features)


@pytest.fixture
def images():
    return torch.rand(6, 3, 20, 20)


@pytest.mark.parametrize("calibrated", [False, True])
def test_channel_attention_is_neither_converted_nor_refitted(images, calibrated):
    dense = AttentionNetwork()
    arguments = {"calibration": images, "polish_steps": 0} if calibrated else {}
    ghost, report = convert(dense, **arguments)
    assert list(ghost_layers(ghost)) == ["first", "second"]
    reasons = {skip.name: skip.reason for skip in report.skipped}
    assert reasons["attention.squeeze"] == "its map has 1 rows or columns, too few to shift"
    for name, value in dense.attention.state_dict().items():
        assert torch.equal(ghost.attention.state_dict()[name], value)


def test_an_attention_that_layers_leave_out_is_not_refitted_either(images):
    dense = AttentionNetwork()
    ghost, report = convert(dense, calibration=images, polish_steps=0, layers=["first", "second"])
    assert report.extra["refitted"] == []
    assert torch.equal(ghost.attention.excite.weight, dense.attention.excite.weight)


def test_an_option_decides_otherwise():
    ghost, _ = convert(AttentionNetwork(), unsuitable="convert")
    assert "attention.excite" in ghost_layers(ghost)


def test_fits_with_fewer_positions_than_twice_the_unknowns_are_left_alone():
    class Wide(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.Conv2d(3, 32, 3, padding=1),
                nn.Conv2d(32, 32, 3, padding=1),
                nn.Conv2d(32, 32, 1),
                nn.Conv2d(32, 3, 3, padding=1),
            )

    _, report = convert(Wide(), calibration=torch.rand(2, 3, 16, 16), polish_steps=0)
    assert [layer.name for layer in report.layers] == ["2"]
    [reason] = [skip.reason for skip in report.skipped if skip.name == "1"]
    assert reason == (
        "its 512 positions on the calibration pictures are too few for filters of 288 weights"
    )


def test_layers_that_take_next_to_nothing_are_left_alone():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 64, 3, padding=1)
            self.middle = nn.Conv2d(64, 64, 3, padding=1)
            self.little = nn.Conv2d(2, 2, 1)
            self.exit = nn.Conv2d(64, 3, 3, padding=1)

        def forward(self, image):
            features = self.middle(self.entry(image))
            little = self.little(features[:, :2])
            return self.exit(torch.cat([little, features[:, 2:]], dim=1))

    _, report = convert(Small())
    assert [layer.name for layer in report.layers] == ["middle"]
    reasons = {skip.name: skip.reason for skip in report.skipped}
    assert reasons["little"] == "it takes less than 0.02% of the multiply-adds"


def test_linear_layers_count_in_the_multiply_adds():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 8, 3, padding=1)
            self.middle = nn.Conv2d(8, 8, 3, padding=1)
            self.mix = nn.Linear(8, 8)
            self.exit = nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, image):
            features = self.middle(self.entry(image))
            features = self.mix(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.exit(features)

    _, report = convert(Mixed())
    pixels = 1280 * 720
    assert report.macs_for == "x1 to 1280 x 720"
    assert report.macs_before == pixels * (2 * 27 * 8 + 72 * 8 + 64)
    assert report.macs_after == report.macs_before - pixels * 72 * 4


def test_where_no_scale_is_known_the_example_is_what_multiply_adds_are_counted_for():
    class Halving(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.Conv2d(8, 8, 3, padding=1, stride=2),
                nn.Conv2d(8, 8, 1),
            )

    _, report = convert(Halving(), example=torch.rand(1, 3, 20, 24))
    assert report.macs_for == "input of 24 x 20"
    assert report.macs_before == 480 * 27 * 8 + 120 * (72 + 8) * 8


class Undeclared(EDSR):
    """Leaves to the converter what is to be converted."""

    def default_layers(self):
        return None


def test_a_network_that_declares_nothing_is_converted_by_the_rule_for_any_network():
    model = Undeclared(blocks=2, features=8)
    ghost, report = convert(model)
    assert list(ghost_layers(ghost)) == [*model_layers(2), "body_end"]
    assert {"head", "tail"} <= {skip.name for skip in report.skipped}


def model_layers(blocks):
    return [f"body.{block}.conv{conv}" for block in range(blocks) for conv in (1, 2)]


class Folding(nn.Module):
    """Folds two branches into one convolution in every call, as SPAN does."""

    def __init__(self):
        super().__init__()
        self.three = nn.Conv2d(8, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 8, 1)
        self.folded = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, features):
        weight = self.three.weight + functional.pad(self.one.weight, [1, 1, 1, 1])
        self.folded.weight.data = weight
        self.folded.bias.data = self.three.bias + self.one.bias
        return self.folded(features)


class FoldingNetwork(nn.Module):
    def __init__(self, plain=True):
        super().__init__()
        self.entry = nn.Conv2d(3, 8, 3, padding=1)
        self.plain = nn.Conv2d(8, 8, 3, padding=1) if plain else nn.Identity()
        self.block = Folding()
        self.exit = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image):
        features = torch.relu(self.block(self.entry(image)))
        return self.exit(torch.relu(self.plain(features)) + features)


def test_weights_that_the_forward_rewrites_are_left_alone(images):
    dense = FoldingNetwork()
    ghost, report = convert(dense, calibration=images, polish_steps=0)
    assert list(ghost_layers(ghost)) == ["plain"]
    reasons = {skip.name: skip.reason for skip in report.skipped}
    assert reasons["block.folded"] == "the network reads or writes its weight itself"
    assert ghost(images).shape == dense(images).shape


def test_a_network_of_nothing_but_such_weights_is_refused_by_name():
    with pytest.raises(InputError, match=r"block\.folded: the network reads or writes its weight"):
        convert(FoldingNetwork(plain=False))


def test_a_forward_that_asks_a_layer_for_its_sizes_converts(images):
    class Asking(AttentionNetwork):
        def forward(self, image):
            image = image.to(self.first.weight.dtype)
            assert self.second.in_channels == self.first.out_channels
            assert self.first.kernel_size == (3, 3)
            return super().forward(image)

    ghost, _ = convert(Asking(), calibration=images, polish_steps=0)
    assert ghost(images).shape == images.shape


def test_a_converted_network_that_cannot_run_is_refused():
    class Counting(AttentionNetwork):
        def forward(self, image):
            if sum(p.numel() for p in self.first.parameters()) != 16 * 16 * 9 + 16:
                raise RuntimeError("somebody took my weights")
            return super().forward(image)

    with pytest.raises(InputError, match="cannot be run once it is converted"):
        convert(Counting())


def test_layers_with_an_error_above_one_are_a_warning():
    """Maps whose channels are all different and cannot be made from half of them."""

    class Level(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 16, 3, padding=1)
            self.middle = nn.Conv2d(16, 16, 1)
            self.exit = nn.Conv2d(16, 3, 3, padding=1)
            with torch.no_grad():
                self.middle.bias.copy_(1000 * torch.randn(16))

        def forward(self, image):
            maps = self.middle(self.entry(image))
            return self.exit(maps) + maps[:, :3]

    images = torch.rand(6, 3, 20, 20)
    _, report = convert(Level(), calibration=images, polish_steps=0)
    assert report.layers[0].relative_error > 1
    assert any("middle" in warning for warning in report.warnings)
    assert "warning: layers whose error is larger" in str(report)


def test_a_polish_that_was_undone_is_a_warning(images):
    class Identity(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 8, 3, padding=1)
            self.middle = nn.Conv2d(8, 8, 3, padding=1)
            self.exit = nn.Conv2d(8, 3, 3, padding=1)
            with torch.no_grad():
                self.exit.weight.zero_()

        def forward(self, image):
            return image + self.exit(self.middle(self.entry(image)))

    _, report = convert(Identity(), calibration=images)
    assert not report.extra["polish"]["kept"]
    assert "the polish made nothing better and was undone" in report.warnings


def test_a_refit_that_does_worse_than_the_old_weights_is_undone():
    """Calibration pictures that say nothing of the layer between."""

    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 8, 3, padding=1)
            self.first = nn.Conv2d(8, 8, 3, padding=1)
            self.between = nn.Conv2d(3, 8, 1)
            self.second = nn.Conv2d(8, 8, 3, padding=1)
            self.exit = nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, image):
            features = self.first(self.entry(image))
            features = features + self.between(image)
            return self.exit(self.second(features))

    dense = Between()
    images = torch.rand(6, 3, 20, 20)
    ghost, report = convert(dense, calibration=images, polish_steps=0, layers=["first", "second"])
    # Its inputs are the same in both networks, so nothing can be better than what it has.
    assert report.extra["refitted"] == []
    assert torch.equal(ghost.between.weight, dense.between.weight)
