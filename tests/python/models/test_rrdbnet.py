"""RRDBNet is the network of ESRGAN and Real-ESRGAN, at every size, in little memory."""

import pytest
import torch
from ghostsr_ext.errors import InputError
from ghostsr_ext.inference.memory import activation_bytes
from ghostsr_ext.models import RRDBNet
from ghostsr_ext.models.rrdbnet import ResidualDenseBlock
from published_networks import Bsrgan, RealEsrgan
from torch import nn
from torch.nn import functional

SMALL = {"blocks": 2, "features": 6, "growth": 4}


def _twin_names(twin: RealEsrgan) -> dict[str, str]:
    body, body_end, enlarged, before_last, dense = twin.NAMES
    names = {"first": "conv_first", "body_end": body_end, "before_last": before_last}
    names |= {"last": "conv_last"}
    names |= {f"enlarged.{i}": f"{enlarged}{i + 1}" for i in range(twin.steps)}
    for b in range(2):
        for d in range(3):
            block, twin_block = f"body.{b}.blocks.{d}", f"{body}.{b}.{dense}{d + 1}"
            names[f"{block}.fusion"] = f"{twin_block}.conv5"
            names |= {f"{block}.layers.{c}": f"{twin_block}.conv{c + 1}" for c in range(4)}
    return names


def _copy(twin: RealEsrgan, **options: int) -> RRDBNet:
    model, names = RRDBNet(**SMALL, **options), _twin_names(twin)
    convolutions = {n for n, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert set(names) == convolutions
    for name, twin_name in names.items():
        model.get_submodule(name).load_state_dict(twin.get_submodule(twin_name).state_dict())
    return model.double().eval()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_computes_the_network_of_real_esrgan(scale: int) -> None:
    twin = RealEsrgan(scale, **SMALL).double()
    model = _copy(twin, scale=scale)
    image = torch.rand(2, 3, 8, 12, dtype=torch.float64)

    torch.testing.assert_close(model(image), twin(image), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_computes_the_network_of_esrgan_without_unshuffle(scale: int) -> None:
    twin = Bsrgan(scale, **SMALL).double()
    model = _copy(twin, scale=scale, unshuffle=1)
    image = torch.rand(1, 3, 5, 7, dtype=torch.float64)

    torch.testing.assert_close(model(image), twin(image), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("size", [(5, 7), (8, 9), (9, 8)])
def test_a_size_that_cannot_be_unshuffled_is_mirrored_to_one_that_can(
    scale: int, size: tuple[int, int]
) -> None:
    twin = RealEsrgan(scale, **SMALL).double()
    model = _copy(twin, scale=scale)
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    below, right = -size[0] % model.multiple, -size[1] % model.multiple

    expected = twin(functional.pad(image, (0, right, 0, below), mode="reflect"))

    rows, columns = size[0] * scale, size[1] * scale
    torch.testing.assert_close(model(image), expected[:, :, :rows, :columns])


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3)])
def test_tiny_pictures_are_enlarged_too(scale: int, size: tuple[int, int]) -> None:
    model = RRDBNet(scale=scale, **SMALL).eval()

    enlarged = model(torch.rand(1, 3, *size))

    assert enlarged.shape == (1, 3, size[0] * scale, size[1] * scale)
    assert torch.isfinite(enlarged).all()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_no_pixel_looks_farther_than_the_receptive_field(scale: int) -> None:
    """Weights of ones make every pixel that is read count."""
    model = RRDBNet(scale=scale, blocks=1, features=2, growth=1).double().eval()
    for parameter in model.parameters():
        nn.init.ones_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    field, grid = model.receptive_field, model.multiple
    side = (2 * field + 2 * grid) // grid * grid
    reached = 0
    for pixel in range(side // 2, side // 2 + grid):
        image = torch.zeros(1, 3, side, 4 * grid, dtype=torch.float64)
        image[:, :, pixel] = 1
        with torch.no_grad():
            rows = model(image)[0, 0].sum(dim=1).nonzero()[:, 0] // scale
        reached = max(reached, int((rows - pixel).abs().max()))

    assert reached == field


def test_converts_the_convolutions_of_its_dense_blocks() -> None:
    model = RRDBNet(**SMALL)
    names = model.default_layers()

    assert len(names) == len(set(names)) == 2 * 3 * 5
    assert all(name.startswith("body.") for name in names)


def test_a_dense_block_takes_no_more_memory_than_its_stack_and_one_map() -> None:
    features, growth, side = 16, 8, 20
    block = ResidualDenseBlock(features, growth).eval()
    pixels = 4 * side * side
    given, stack, one_map = features * pixels, (features + 4 * growth) * pixels, features * pixels

    peak = activation_bytes(block, (1, features, side, side), compute=True)

    assert peak - given <= stack + one_map


def test_a_network_takes_no_more_memory_than_its_largest_maps() -> None:
    """Two maps at the full size; beside them the map before, the first map, the picture twice."""
    features, side = 16, 20
    network = RRDBNet(scale=4, blocks=2, features=features, growth=8).eval()
    pixels = 4 * side * side

    peak = activation_bytes(network, (1, 3, side, side), compute=True)

    assert peak <= (2 * 16 * features + 4 * features + features + 2 * 3) * pixels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 3}, "scale: got 3, allowed are 1, 2, 4, 8 and 16"),
        ({"scale": True}, "scale: got True"),
        ({"unshuffle": 3}, "unshuffle: got 3, allowed are 1, 2 and 4"),
        ({"blocks": 0}, "blocks: got 0"),
        ({"growth": 1.5}, r"growth: got 1\.5"),
    ],
)
def test_refuses_what_it_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RRDBNet(**options)
