import pytest
import torch
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import EDSR
from ghostsr_ext.nn import FusedConv2d
from published_networks import EdsrPytorch
from torch import nn

NAMES = {
    "head": "head.0",
    "body.0.conv1": "body.0.body.0",
    "body.0.conv2": "body.0.body.2",
    "body.1.conv1": "body.1.body.0",
    "body.1.conv2": "body.1.body.2",
    "body_end": "body.2",
}


def with_weights_of(model: EDSR, twin: nn.Module, names: dict[str, str]) -> EDSR:
    for name, twin_name in names.items():
        model.get_submodule(name).load_state_dict(twin.get_submodule(twin_name).state_dict())
    return model.double().eval()


@pytest.mark.parametrize(
    ("scale", "stages"),
    [(2, [0]), (3, [0]), (4, [0, 2]), (8, [0, 2, 4])],
)
@pytest.mark.parametrize("residual_scale", [1.0, 0.1])
def test_computes_the_published_network(
    scale: int, stages: list[int], residual_scale: float
) -> None:
    mean = (114.0, 111.0, 103.0)
    twin = EdsrPytorch(scale, residual_scale=residual_scale, mean=mean)
    model = EDSR(scale=scale, blocks=2, features=8, residual_scale=residual_scale, mean=mean)
    upsampler = {f"upsampler.convs.{i}": f"tail.0.{stage}" for i, stage in enumerate(stages)}
    model = with_weights_of(model, twin, {**NAMES, **upsampler, "tail": "tail.1"})
    image = 255 * torch.rand(2, 3, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(model(image), twin.double()(image), rtol=1e-10, atol=1e-10)


def test_direct_tail_shuffles_the_pixels_of_one_convolution() -> None:
    twin = EdsrPytorch(3, direct=True)
    model = EDSR(scale=3, blocks=2, features=8, residual_scale=1.0, mean=None, tail="direct")
    model = with_weights_of(model, twin, {**NAMES, "tail": "tail.0"})
    image = torch.rand(1, 3, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(model(image), twin.double()(image), rtol=1e-10, atol=1e-10)


def test_mean_is_that_of_div2k_in_the_value_range() -> None:
    assert EDSR(blocks=1, features=4).config["mean"] == [114.444, 111.4605, 103.02]
    assert EDSR(blocks=1, features=4, value_range=1.0).config["mean"] == [0.4488, 0.4371, 0.404]


def test_converts_the_convolutions_of_its_blocks_and_no_other() -> None:
    model = EDSR(blocks=3, features=4)
    names = model.default_layers()
    assert len(names) == len(set(names)) == 6
    assert all(isinstance(model.get_submodule(name), FusedConv2d) for name in names)
    assert all(name.startswith("body.") for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, "scale: got 5"),
        ({"blocks": 0}, "blocks: got 0"),
        ({"blocks": 10**9}, "blocks: got 1000000000"),
        ({"features": 2.5}, "features: got 2.5"),
        ({"scale": [2]}, "scale: got"),
        ({"residual_scale": "0.1"}, "residual_scale: got '0.1'"),
        ({"residual_scale": float("nan")}, "residual_scale: got nan"),
        ({"tail": "bilinear"}, "tail: got 'bilinear'"),
        ({"value_range": 65535.0}, "value_range: got 65535"),
        ({"mean": [0.1, 0.2]}, "mean: got"),
        ({"mean": [300.0, 0.0, 0.0]}, "mean: got"),
    ],
)
def test_refuses_hyperparameters_out_of_their_domain(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EDSR(**{"blocks": 1, "features": 4, **arguments})
