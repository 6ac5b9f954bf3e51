import copy

import pytest
import torch
from ghostsr_ext.conversion import convert, distillation, polish, wanted
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import EDSR
from PIL import Image
from torch import nn


@pytest.fixture
def dense():
    torch.manual_seed(2)
    return EDSR(blocks=1, features=8, residual_scale=1.0)


class Plain(nn.Module):
    """Hides that it is a super-resolution network, so that its own output is wanted."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(image)


@pytest.fixture
def images():
    return torch.rand(16, 3, 12, 12) * 255


def test_a_polish_brings_the_output_closer_to_the_dense_networks(dense, images):
    ghost, _ = convert(dense, method="filters")
    report = polish(ghost, dense, images, steps=40)
    assert report.steps == 40
    assert report.kept
    assert report.error_after < 0.7 * report.error_before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_polish_trains_the_same_where_no_gradients_are_recorded(dense, images, mode):
    first, second = (convert(dense, calibration=images, polish_steps=0)[0] for _ in range(2))
    polish(first, dense, images, steps=3)

    with mode():
        polish(second, dense, images, steps=3)

    for name, expected in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], expected), name


def test_the_value_range_makes_no_difference(dense, images):
    """The same network with the range folded into its first and last layers trains as well."""
    small = EDSR(blocks=1, features=8, residual_scale=1.0, mean=[0.0, 0.0, 0.0], value_range=1.0)
    large = EDSR(blocks=1, features=8, residual_scale=1.0, mean=[0.0, 0.0, 0.0])
    large.load_state_dict(small.state_dict())
    with torch.no_grad():
        large.head.weight /= 255
        large.tail.weight *= 255
        large.tail.bias *= 255
    gains = []
    for model, inputs in ((small, images / 255), (large, images)):
        ghost, _ = convert(model, method="filters")
        report = polish(ghost, model, inputs, steps=12)
        gains.append(report.error_after / report.error_before)
    assert gains[0] == pytest.approx(gains[1], rel=0.05)
    assert gains[0] < 1


def test_shifts_and_tables_stay(dense, images):
    ghost, _ = convert(dense, method="filters")
    before = {name: value.clone() for name, value in ghost.named_buffers()}
    polish(ghost, dense, images, steps=3)
    assert all(torch.equal(before[name], value) for name, value in ghost.named_buffers())


def test_the_dense_network_and_the_modes_are_left_alone(dense, images):
    weights = {name: value.clone() for name, value in dense.state_dict().items()}
    ghost, _ = convert(dense, method="filters")
    ghost.train()
    dense.eval()
    polish(ghost, dense, images, steps=2)
    assert ghost.training
    assert not dense.training
    assert all(torch.equal(weights[name], value) for name, value in dense.state_dict().items())
    assert all(p.grad is None for p in ghost.parameters())


def test_a_polish_that_makes_nothing_better_is_undone(dense, images):
    same = EDSR(blocks=1, features=8, residual_scale=1.0)
    same.load_state_dict(dense.state_dict())

    report = polish(Plain(same), Plain(dense), images, steps=2)
    assert report.error_before == 0
    assert not report.kept
    weights = dense.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in same.state_dict().items())


def test_a_polish_that_went_too_fast_is_tried_again_more_slowly(dense, images, monkeypatch):
    monkeypatch.setattr(distillation, "_RATES", (1e3, 0.005))
    ghost, _ = convert(dense, method="filters")
    report = polish(ghost, dense, images, steps=10)
    assert report.steps == 15
    assert report.kept
    assert report.error_after < report.error_before


@pytest.fixture
def diverging(monkeypatch):
    monkeypatch.setattr(distillation, "_RATES", (1e3, 0.005))
    monkeypatch.setattr(distillation, "_FIRST_LOOK", 5)


def test_steps_that_go_far_too_fast_are_given_up_early(dense, images, diverging):
    ghost, _ = convert(dense, method="filters")
    report = polish(ghost, dense, images, steps=40)
    assert report.steps == 45
    assert report.rate == 0.005
    assert report.kept


def test_the_minutes_that_are_left_are_used_at_a_lower_rate(dense, images, diverging):
    ghost, _ = convert(dense, method="filters")
    report = polish(ghost, dense, images, minutes=0.05)
    assert report.rate == 0.005
    assert report.kept


class _Inventing(EDSR):
    """Gives other details for a picture that is turned."""

    def upscale(self, image, scale):
        ramp = torch.linspace(-40, 40, image.shape[-1]).repeat_interleave(scale)
        return super().upscale(image, scale) + ramp * image.mean(dim=(1, 2, 3), keepdim=True)


def test_a_network_that_invents_details_is_not_averaged_over_its_symmetries(images):
    torch.manual_seed(2)
    dense = _Inventing(blocks=1, features=8, residual_scale=1.0)
    ghost, _ = convert(dense, method="filters")
    report = polish(ghost, dense, images, steps=40)
    assert not report.self_ensemble
    assert report.error_after < 0.7 * report.error_before


def test_a_network_that_hardly_changes_with_its_input_turned_is_averaged(dense, images):
    with torch.no_grad():
        dense.body[0].conv2.weight.mul_(0.01)
        for layer in (dense.head, dense.body[0].conv1, dense.body_end, dense.tail):
            layer.weight.copy_((layer.weight + layer.weight.flip(2)) / 2)
            layer.weight.copy_((layer.weight + layer.weight.flip(3)) / 2)
            layer.weight.copy_((layer.weight + layer.weight.transpose(2, 3)) / 2)
    ghost, _ = convert(dense, method="filters")
    with torch.no_grad():
        ghost.tail.bias.add_(20)
    assert polish(ghost, dense, images, steps=2).self_ensemble


def test_the_same_seed_gives_the_same_weights(dense, images):
    results = []
    for _ in range(2):
        ghost, _ = convert(dense, method="filters")
        polish(ghost, dense, images, steps=3, seed=5)
        results.append(ghost.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


class _Further:
    """Further inputs, and what was asked for."""

    def __init__(self):
        self.numbers = []

    def __call__(self, number):
        self.numbers.append(number)
        return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(number)) * 255


def test_a_long_polish_sees_further_inputs(dense, images, monkeypatch):
    monkeypatch.setattr(distillation, "_LOOKS", 2)
    ghost, _ = convert(dense, method="filters")
    more = _Further()
    # 14 inputs seen twice are 7 steps of 4; each 4 further ones make 2 steps more.
    report = polish(ghost, dense, images, steps=12, more=more)
    assert more.numbers == [0, 1, 2]
    assert report.inputs == len(images) + 12
    assert report.error_after < report.error_before


def test_a_short_polish_asks_for_no_further_inputs(dense, images):
    ghost, _ = convert(dense, method="filters")
    more = _Further()
    assert polish(ghost, dense, images, steps=12, more=more).inputs == len(images)
    assert not more.numbers


def test_further_inputs_are_wanted_as_the_dense_network_gives_them(dense, images, monkeypatch):
    """A network that is right already stays so, whatever is seen."""
    monkeypatch.setattr(distillation, "_LOOKS", 1)
    same = EDSR(blocks=1, features=8, residual_scale=1.0)
    same.load_state_dict(dense.state_dict())

    task = distillation._Task(Plain(same), Plain(dense), images, 0, _Further())
    attempt = distillation._Attempt(task, 0)
    attempt.begin(0.0)
    attempt.run(lambda number: number / 8, float("inf"))
    assert task.number_of_inputs > len(images)
    assert task.error() == 0


def test_a_polish_goes_on_when_no_further_pictures_can_be_had(dense, images, monkeypatch):
    monkeypatch.setattr(distillation, "_LOOKS", 1)
    ghost, _ = convert(dense, method="filters")

    def gone(number):
        raise InputError(f"picture {number}: does not exist")

    report = polish(ghost, dense, images, steps=12, more=gone)

    assert report.steps == 12
    assert report.inputs == len(images)


def test_what_is_wanted_for_turned_inputs_is_kept_in_bounded_memory(images, monkeypatch):
    torch.manual_seed(2)
    dense = _Inventing(blocks=1, features=8, residual_scale=1.0)
    ghost, _ = convert(dense, method="filters")
    results = []
    for most in (1024, 5):
        monkeypatch.setattr(wanted, "_MOST_TURNED", most)
        task = distillation._Task(copy.deepcopy(ghost), dense, images, 0, None)
        attempt = distillation._Attempt(task, 0)
        attempt.begin(0.0)
        attempt.run(lambda number: number / 12, float("inf"))
        assert len(task.wanted._turned) <= most
        results.append(task.error())
    assert results[0] == results[1]


def test_pictures_give_a_long_polish_further_crops_the_same_for_each_seed(
    dense, tmp_path, monkeypatch
):
    monkeypatch.setattr(distillation, "_LOOKS", 1)
    monkeypatch.setattr("ghostsr_ext.conversion.network._POLISH_CROPS", 8)
    noise = torch.randint(256, (200, 200, 3), generator=torch.Generator().manual_seed(1))
    Image.fromarray(noise.numpy().astype("uint8")).save(tmp_path / "noise.png")
    results = [convert(dense, calibration=tmp_path, polish_steps=6, seed=3) for _ in range(2)]
    assert results[0][1].extra["polish"]["inputs"] > 8
    first, second = (model.state_dict() for model, _ in results)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_conversion_with_a_polish_reports_it(dense, images):
    _, report = convert(dense, calibration=images, polish_minutes=0.01)
    assert report.extra["polish"]["steps"] >= 1


@pytest.mark.parametrize("budget", [{}, {"minutes": 1, "steps": 1}, {"minutes": 0}, {"steps": 0}])
def test_an_unclear_budget_is_refused(dense, images, budget):
    with pytest.raises(InputError, match="polish: "):
        polish(dense, dense, images, **budget)


def test_a_polish_without_pictures_is_refused(dense):
    with pytest.raises(InputError, match="polish_minutes: a polish needs calibration pictures"):
        convert(dense, polish_minutes=1)


def test_a_single_input_is_refused(dense, images):
    with pytest.raises(InputError, match="needs 2 or more"):
        polish(dense, dense, images[:1], steps=1)


def test_a_network_without_trainable_parameters_is_refused(dense, images):
    with pytest.raises(InputError, match="nothing to train"):
        polish(dense.requires_grad_(False), dense, images, steps=1)


def test_a_calibrated_conversion_ends_with_a_short_polish_unless_told_not_to(dense, images):
    _, finished = convert(dense, calibration=images)
    assert finished.extra["polish"]["steps"] == 60
    _, plain = convert(dense, calibration=images, polish_minutes=0)
    assert "polish" not in plain.extra


def test_frozen_networks_are_calibrated_without_a_polish(dense, images):
    _, report = convert(dense.requires_grad_(False), calibration=images)
    assert "polish" not in report.extra
