"""Gains that the following convolution takes into its weights."""

import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.conversion.absorption import find_followers
from ghostsr_ext.conversion.convolutions import trace
from torch import nn


class Chain(nn.Module):
    """Three convolutions with something between the second and the third."""

    def __init__(self, between=None, groups=1):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.third = nn.Conv2d(8, 2, 3, padding=1, groups=min(groups, 2))
        self.between = between or nn.ReLU()

    def forward(self, image):
        return self.third(self.between(self.second(self.first(image))))


def followers(model, side=12):
    example = torch.rand(1, 2, side, side)
    network = trace(model.eval(), example)
    return find_followers(model, network, network.called, example)


@pytest.mark.parametrize(
    "between", [nn.Identity(), nn.ReLU(), nn.LeakyReLU(0.2), nn.PReLU(8, init=0.3)]
)
def test_activations_that_keep_positive_factors_let_them_through(between):
    assert followers(Chain(between)) == {"first": "second", "second": "third"}


@pytest.mark.parametrize("between", [nn.GELU(), nn.Sigmoid(), nn.Softmax(1)])
def test_other_modules_do_not(between):
    assert followers(Chain(between)) == {"first": "second"}


def test_an_output_that_a_skip_reads_too_keeps_its_size():
    class Skip(Chain):
        def forward(self, image):
            features = self.first(image)
            return self.third(self.between(self.second(features)) + features)

    assert followers(Skip()) == {}


def test_a_network_that_refuses_a_corner_of_the_example_is_run_on_all_of_it():
    class Strict(Chain):
        def forward(self, image):
            if image.shape[-1] % 32:
                raise ValueError("sides must be multiples of 32")
            return super().forward(image)

    assert followers(Strict(), side=32) == {"first": "second", "second": "third"}


def test_looking_for_followers_changes_nothing():
    model = Chain()
    before = [parameter.clone() for parameter in model.parameters()]
    followers(model)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


@pytest.mark.parametrize("groups", [1, 2])
def test_ghosts_that_are_multiples_of_their_sources_are_exact_without_gains(groups):
    model = Chain(groups=groups).requires_grad_(False)
    for channel, factor in enumerate((0.25, 3.0, 0.5, 2.0)):
        low, high = 2 * channel, 2 * channel + 1
        model.second.weight[high] = factor * model.second.weight[low]
        model.second.bias[high] = factor * model.second.bias[low]
    images = torch.rand(8, 2, 16, 16)
    ghost, report = convert(
        model, 0.5, layers=["second"], calibration=images, polish_minutes=0, max_shift=0
    )
    assert ghost.second.gain is None
    assert report.layers[0].relative_error < 1e-6
    torch.testing.assert_close(ghost(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("skips", [True, False])
def test_a_dark_picture_hides_nothing(skips):
    class Network(Chain):
        def forward(self, image):
            features = self.first(image)
            found = self.between(self.second(features))
            return self.third(found + features if skips else found)

    model = Network().eval()
    for layer in (model.first, model.second, model.third):
        layer.bias = None
    dark = torch.zeros(1, 2, 32, 32)
    dark[..., 28:, 28:] = 1
    network = trace(model, dark)

    found = find_followers(model, network, network.called, dark)

    assert found == ({} if skips else {"first": "second", "second": "third"})


def test_a_network_that_gives_zeros_tells_nothing():
    model = Chain()
    nn.init.zeros_(model.third.weight)
    nn.init.zeros_(model.third.bias)

    assert followers(model) == {}
