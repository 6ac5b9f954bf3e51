import numpy as np
import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.conversion.pictures import calibration_inputs
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models import CARN, EDSR, VDSR
from torch import nn


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


def test_pictures_for_a_network_of_unknown_inputs_are_refused(folder):
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(3)))
    with pytest.raises(InputError, match="as a tensor"):
        convert(model, calibration=folder)
