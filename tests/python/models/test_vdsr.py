import pytest
import torch
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import VDSR
from published_networks import NumberedVdsr


@pytest.mark.parametrize(("color", "channels"), [("y", 1), ("rgb", 3)])
def test_computes_the_network_of_the_paper(color: str, channels: int) -> None:
    twin = NumberedVdsr(features=6, layers=5, channels=channels)
    model = VDSR(layers=5, features=6, color=color)
    for i in range(5):
        weights = twin.get_submodule(f"conv{i + 1}").state_dict()
        model.get_submodule(f"convs.{i}").load_state_dict(weights)
    image = torch.rand(2, channels, 6, 7, dtype=torch.float64)
    output = model.double().eval()(image)
    torch.testing.assert_close(output, twin.double()(image), rtol=1e-10, atol=1e-10)


def test_keeps_the_size_of_the_enlarged_picture_at_every_scale() -> None:
    model = VDSR(layers=3, features=4).eval()
    image = torch.rand(1, 1, 6, 7)
    assert model.input_upscaled
    assert model.scales == (2, 3, 4)
    torch.testing.assert_close(model(image, 4), model(image, 2))


def test_has_no_biases_when_told_so() -> None:
    assert not any("bias" in name for name, _ in VDSR(bias=False).named_parameters())


def test_converts_all_but_the_first_and_the_last_convolution() -> None:
    assert VDSR().default_layers() == [f"convs.{i}" for i in range(1, 19)]


def test_refuses_fewer_than_three_layers() -> None:
    with pytest.raises(InputError, match="layers"):
        VDSR(layers=2)
