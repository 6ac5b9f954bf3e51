import numpy as np
import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.conversion.picture_format import picture_format
from ghostsr_ext.conversion.pictures import calibration_inputs
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models import CARN, EDSR, VDSR
from torch import nn
from torch.nn import functional


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(3):
        picture = generator.integers(0, 256, (80, 70, 3), dtype=np.uint8)
        write_image(tmp_path / f"{number}.png", picture)
    return tmp_path


def test_crops_come_in_the_networks_range_and_type(folder):
    model = EDSR(blocks=1, features=4, value_range=1.0).double()
    inputs = calibration_inputs(model, folder, crops=5, side=16)
    assert inputs.shape == (5, 3, 16, 16)
    assert inputs.dtype == torch.float64
    assert 0.5 < float(inputs.max()) <= 1


def test_luma_networks_get_enlarged_luma(folder):
    inputs = calibration_inputs(VDSR(layers=3, features=4), folder, crops=6, side=16)
    assert inputs.shape == (6, 1, 16, 16)


def test_networks_of_several_scales_get_crops_of_each(folder):
    model = CARN(scale=[2, 4], features=4)
    inputs = calibration_inputs(model, folder, crops=4, side=16)
    assert inputs.shape == (4, 3, 16, 16)


def test_the_seed_decides(folder):
    model = EDSR(blocks=1, features=4)
    first, again, other = (
        calibration_inputs(model, folder, crops=3, side=16, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pictures_that_are_too_small_are_passed_over(folder):
    write_image(folder / "tiny.png", np.zeros((8, 8, 3), dtype=np.uint8))
    inputs = calibration_inputs(EDSR(blocks=1, features=4), folder, crops=12, side=16)
    assert float(inputs.amax(dim=(1, 2, 3)).min()) > 0


def test_pictures_that_are_all_too_small_are_refused(folder):
    with pytest.raises(InputError, match="no picture has 96 rows and columns"):
        convert(EDSR(blocks=1, features=4), calibration=folder)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no pictures"):
        convert(EDSR(blocks=1, features=4), calibration=tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        convert(EDSR(blocks=1, features=4), calibration=tmp_path / "nowhere")


def test_an_unreadable_picture_is_refused_by_name(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        convert(EDSR(blocks=1, features=4), calibration=tmp_path)


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="list of pictures is empty"):
        convert(EDSR(blocks=1, features=4), calibration=[])


class Enlarging(nn.Module):
    """Repeats pixels, and adds what its convolutions make: nothing at first."""

    def __init__(self, scale=2, value_range=1.0, channels=3):
        super().__init__()
        self.entry = nn.Conv2d(channels, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.exit = nn.Conv2d(8, channels, 3, padding=1)
        self.scale, self.white = scale, value_range
        with torch.no_grad():
            self.exit.weight.mul_(0.01)
            self.exit.bias.zero_()

    def forward(self, image):
        # Only in its own range does the network know what is white.
        image = image.clamp(max=self.white)
        offset = (image.amax() < self.white / 20).to(image) * self.white
        features = self.middle(torch.relu(self.entry(image / self.white - 0.5)))
        output = image + self.white * self.exit(torch.relu(features)) + offset
        return functional.interpolate(output, scale_factor=self.scale)


@pytest.mark.parametrize("value_range", [1.0, 255.0])
@pytest.mark.parametrize("scale", [1, 2])
def test_scale_and_value_range_of_any_network_are_found_out(scale, value_range):
    form = picture_format(Enlarging(scale, value_range))
    assert (form.scale, form.value_range) == (scale, value_range)
    assert form.color == "rgb"
    assert not form.input_upscaled


def test_an_input_that_is_enlarged_already_is_told_by_the_scale():
    form = picture_format(Enlarging(1, channels=1), scale=3)
    assert form.input_upscaled
    assert form.color == "y"


def test_what_is_given_wins():
    assert picture_format(Enlarging(), value_range=2.5).value_range == 2.5


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (Enlarging(2), {"scale": 3}, "scale: found 3; the network enlarges by 2"),
        (Enlarging(2), {"scale": 0}, "scale: found 0; whole numbers from 1 to 64"),
        (Enlarging(2), {"value_range": -1.0}, "value_range: found -1.0"),
        (EDSR(blocks=1, features=4), {"scale": 3}, "scale: found 3; the network says 2 itself"),
        (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2)), {}, "no pictures of a multiple of its input"),
        (nn.Sequential(nn.Conv2d(9, 8, 3)), {}, "takes 9 channels"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)), {}, "value_range: cannot be told"),
    ],
)
def test_what_contradicts_or_cannot_be_told_is_refused(model, arguments, message):
    with pytest.raises(InputError, match=message):
        picture_format(model, **arguments)


@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_a_folder_calibrates_any_network(folder, value_range):
    _, report = convert(Enlarging(1, value_range), calibration=folder, polish_steps=0)
    assert report.settings["calibration_inputs"] == [48, 3, 48, 48]
    assert report.layers[0].relative_error < 1
