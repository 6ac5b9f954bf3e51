"""SRVGGNetCompact is the network of Real-ESRGAN, with each of its activations."""

from collections.abc import Callable

import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import SRVGGNetCompact
from published_networks import RealEsrganCompact
from torch import nn

ACTIVATIONS = {
    "prelu": nn.PReLU,
    "relu": lambda _: nn.ReLU(),
    "leaky_relu": lambda _: nn.LeakyReLU(0.1),
}


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("name", "activation"), ACTIVATIONS.items())
def test_computes_the_network_of_real_esrgan(
    scale: int, name: str, activation: Callable[[int], nn.Module]
) -> None:
    twin = RealEsrganCompact(scale, features=6, layers=3, activation=activation)
    for slopes in twin.body:
        if isinstance(slopes, nn.PReLU):
            nn.init.uniform_(slopes.weight, -0.5, 0.5)
    model = SRVGGNetCompact(scale=scale, features=6, layers=3, activation=name)
    pairs = zip([*model.convs, model.last], twin.body[::2], strict=True)
    for number, (conv, twin_conv) in enumerate(pairs):
        conv.load_state_dict(twin_conv.state_dict(), strict=False)
        if name == "prelu" and number < 4:
            conv.prelu_weight.data = twin.body[2 * number + 1].weight.data
    image = torch.rand(2, 3, 5, 6, dtype=torch.float64)

    found = model.double().eval()(image)

    torch.testing.assert_close(found, twin.double()(image), rtol=1e-10, atol=1e-10)


def test_converts_all_but_the_first_and_the_last_convolution() -> None:
    model = SRVGGNetCompact(layers=3, features=4)

    assert model.default_layers() == ["convs.1", "convs.2", "convs.3"]


def test_conversion_keeps_the_slopes() -> None:
    model = SRVGGNetCompact(layers=3, features=8)
    for conv in model.convs:
        nn.init.uniform_(conv.prelu_weight, -0.5, 0.5)

    ghost, _ = convert(model, 0.5)

    for before, after in zip(model.convs, ghost.convs, strict=True):
        assert torch.equal(after.prelu_weight, before.prelu_weight)


def test_the_receptive_field_is_that_of_its_convolutions() -> None:
    assert SRVGGNetCompact(layers=3, features=4).receptive_field == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "gelu"}, "activation: got 'gelu', allowed are prelu, relu, leaky_relu"),
        ({"scale": 17}, "scale: got 17"),
        ({"layers": 0}, "layers: got 0"),
    ],
)
def test_refuses_what_it_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SRVGGNetCompact(**options)
