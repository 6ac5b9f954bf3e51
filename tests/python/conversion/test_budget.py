import numpy as np
import pytest
import torch
from ghostsr_ext.conversion import convert
from ghostsr_ext.conversion.budget import Choice, allot_ratios
from ghostsr_ext.conversion.pictures import mean_psnr
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.models import EDSR
from ghostsr_ext.nn import ghost_layers
from torch import nn

CHOICES = {
    "cheap": [Choice(0, 100, 0), Choice(0.25, 75, 1), Choice(0.5, 50, 2), Choice(0.75, 25, 9)],
    "dear": [Choice(0, 100, 0), Choice(0.25, 75, 5), Choice(0.5, 50, 20), Choice(0.75, 25, 60)],
}


@pytest.mark.parametrize(
    ("to_save", "expected"),
    [
        (0, {"cheap": 0, "dear": 0}),
        (25, {"cheap": 0.25, "dear": 0}),
        (50, {"cheap": 0.5, "dear": 0}),
        (75, {"cheap": 0.5, "dear": 0.25}),
        (100, {"cheap": 0.75, "dear": 0.25}),
        (150, {"cheap": 0.75, "dear": 0.75}),
    ],
)
def test_what_costs_least_for_what_it_saves_goes_first(to_save, expected):
    assert allot_ratios(CHOICES, to_save) == expected


def test_a_bad_step_to_a_good_one_is_skipped_over():
    choices = {
        "one": [Choice(0, 100, 0), Choice(0.25, 75, 50), Choice(0.5, 50, 4)],
        "two": [Choice(0, 100, 0), Choice(0.25, 75, 6), Choice(0.5, 50, 12)],
    }
    assert allot_ratios(choices, 25) == {"one": 0.5, "two": 0}


def test_more_than_there_is_cannot_be_saved():
    with pytest.raises(InputError, match="layers allow 150"):
        allot_ratios(CHOICES, 151)


@pytest.fixture
def model():
    torch.manual_seed(3)
    return EDSR(blocks=3, features=8, residual_scale=1.0)


@pytest.fixture
def images():
    return torch.rand(8, 3, 16, 16) * 255


def test_the_networks_multiply_adds_come_down_to_the_target(model, images):
    ghost, report = convert(model, calibration=images, polish_minutes=0, target_macs=0.8)
    assert 0.7 < report.macs_after / report.macs_before <= 0.8
    assert ghost_layers(ghost)


def test_linear_layers_count_towards_the_target():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
            self.mix = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8))
            self.ends = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)])

        def forward(self, image):
            features = self.ends[0](image)
            for conv in self.convs:
                mixed = self.mix(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                features = torch.relu(conv(features + mixed))
            return self.ends[1](features)

    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    _, report = convert(Attending(), calibration=images, polish_minutes=0, target_macs=0.9)
    assert report.macs_before == 1280 * 720 * (4 * (576 + 1024) + 216 + 24)
    assert 0.85 < report.macs_after / report.macs_before <= 0.9


def test_a_block_that_matters_more_gets_lower_ratios(model, images):
    with torch.no_grad():
        model.body[1].conv2.weight *= 30
    _, report = convert(model, calibration=images, polish_minutes=0, target_macs=0.75)
    ratios = report.settings["ratios"]
    amplified = [ratios.pop("body.1.conv1"), ratios.pop("body.1.conv2")]
    assert max(amplified) < min(ratios.values())


def test_layers_that_the_budget_spares_are_named(model, images):
    _, report = convert(model, calibration=images, polish_minutes=0, target_macs=0.95)
    assert "the budget does not need it" in {skip.reason for skip in report.skipped}


def test_the_drop_stays_within_its_bound(model, tmp_path):
    generator = np.random.default_rng(0)
    smooth = generator.random((4, 3, 3, 3)).repeat(40, axis=1).repeat(40, axis=2)
    for number, picture in enumerate(smooth):
        write_image(tmp_path / f"{number}.png", (picture * 255).astype(np.uint8))
    ghost, report = convert(model, calibration=tmp_path, polish_minutes=0, max_drop=0.3)
    drop = mean_psnr(model, tmp_path) - mean_psnr(ghost, tmp_path)
    assert drop <= 0.3
    assert report.macs_after < report.macs_before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_macs": 0.5, "max_drop": 0.1}, "found both"),
        ({"target_macs": 1.0}, "target_macs: found 1.0"),
        ({"max_drop": 0.0}, "max_drop: found 0.0"),
        ({"max_drop": 0.3}, "max_drop: PSNR needs originals"),
        ({"target_macs": 0.01}, "target_macs: .* the selected layers allow"),
    ],
)
def test_bad_budgets_are_refused(model, images, arguments, message):
    with pytest.raises(InputError, match=message):
        convert(model, calibration=images, **arguments)


def test_a_budget_without_pictures_is_refused(model):
    with pytest.raises(InputError, match="sensitivity is measured on calibration pictures"):
        convert(model, target_macs=0.5)
