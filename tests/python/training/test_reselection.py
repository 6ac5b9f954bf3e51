"""Ghosts get other sources and shifts where that makes the loss fall."""

import pytest
import torch
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.nn import GhostConv2d, ghost_layers
from ghostsr_ext.training import train
from ghostsr_ext.training.config import ShiftConfig
from ghostsr_ext.training.reselection import Forward, reselect
from ghostsr_ext.training.schedules import reselects
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

WANTED_SOURCE = torch.tensor([2, 0, 3, 1])
WANTED_SHIFT = torch.tensor([[0, 1], [-1, 0], [1, 1], [0, 0]])


def layer(source, shift, **arguments):
    torch.manual_seed(0)
    made = GhostConv2d(3, 8, 3, padding=1, **arguments).freeze_shifts()
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    return made.set_tables(torch.as_tensor(source), torch.as_tensor(shift), order)


def pictures(seed):
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def passes(model, dense, inputs, loss):
    def forward():
        with torch.no_grad():
            wanted = dense(inputs)
        output = model(inputs)
        return Forward(loss(output, wanted), output, wanted)

    return forward


def reselected(model, dense, *, loss=functional.mse_loss, times=1, **arguments):
    check = passes(model, dense, pictures(2), loss)
    return sum(
        reselect(model, passes(model, dense, pictures(1), loss), lambda: check().loss, **arguments)
        for _ in range(times)
    )


@pytest.mark.parametrize("loss", [functional.mse_loss, functional.l1_loss])
@pytest.mark.parametrize("finish", [{}, {"residual_scale": 0.5}])
def test_sources_and_shifts_that_were_lost_are_found(loss, finish):
    dense = nn.Sequential(layer(WANTED_SOURCE, WANTED_SHIFT, **finish))
    model = nn.Sequential(layer([0, 1, 2, 3], [[0, 0]] * 4, **finish))

    assert reselected(model, dense, loss=loss, times=2) == 4
    assert torch.equal(model[0].source, WANTED_SOURCE)
    assert torch.equal(model[0].shift, WANTED_SHIFT)


@pytest.mark.parametrize(
    "finish",
    [
        {"activation": "relu"},
        {"activation": "leaky_relu", "negative_slope": 0.2},
        {"activation": "prelu", "prelu_parameters": 8},
    ],
)
def test_what_is_found_behind_an_activation_makes_the_loss_of_other_pictures_fall(finish):
    dense = nn.Sequential(layer(WANTED_SOURCE, WANTED_SHIFT, **finish))
    model = nn.Sequential(layer([0, 1, 2, 3], [[0, 0]] * 4, **finish))
    measured = passes(model, dense, pictures(3), functional.mse_loss)
    before = measured().loss

    assert reselected(model, dense) >= 2
    assert measured().loss < 0.9 * before


def test_gains_and_biases_are_found_with_them():
    dense = nn.Sequential(layer(WANTED_SOURCE, WANTED_SHIFT, affine=True))
    with torch.no_grad():
        dense[0].gain.copy_(torch.tensor([1.5, -1.0, 0.5, 2.0]))
        dense[0].ghost_bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    model = nn.Sequential(layer([0, 1, 2, 3], [[0, 0]] * 4, affine=True))

    reselected(model, dense, times=3)

    assert torch.equal(model[0].source, WANTED_SOURCE)
    assert torch.equal(model[0].shift, WANTED_SHIFT)
    torch.testing.assert_close(model[0].gain, dense[0].gain, rtol=0.05, atol=0.02)


class Twice(nn.Module):
    """Uses one layer twice, the second time with a residual."""

    def __init__(self, used):
        super().__init__()
        self.used = used

    def forward(self, input):
        inner = self.used(input)
        return self.used(inner[:, :3], inner)


def test_a_layer_that_is_used_twice_and_adds_a_residual_finds_them_too():
    dense = Twice(layer(WANTED_SOURCE, WANTED_SHIFT, residual_scale=0.3))
    model = Twice(layer([2, 0, 3, 0], WANTED_SHIFT, residual_scale=0.3))

    assert reselected(model, dense) == 1
    assert torch.equal(model.used.source, WANTED_SOURCE)


def test_a_network_without_ghosts_is_left_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1))

    assert reselected(model, nn.Sequential(nn.Conv2d(3, 8, 3, padding=1))) == 0


class Lifted(nn.Module):
    """Adds a residual behind which a rectifier lets half of the rows through."""

    def __init__(self, used):
        super().__init__()
        self.used = used

    def forward(self, input):
        residual = torch.full((len(input), 8, 12, 12), 50.0)
        residual[:, :, ::2] = -50.0
        return self.used(input, residual)


def test_slopes_of_an_activation_are_those_behind_the_residual():
    dense = Lifted(layer(WANTED_SOURCE, WANTED_SHIFT, activation="relu"))
    model = Lifted(layer([0, 1, 2, 3], [[0, 0]] * 4, activation="relu"))

    assert reselected(model, dense) == 4
    assert torch.equal(model.used.source, WANTED_SOURCE)
    assert torch.equal(model.used.shift, WANTED_SHIFT)


def test_what_is_right_stays():
    dense = nn.Sequential(layer(WANTED_SOURCE, WANTED_SHIFT))
    model = nn.Sequential(layer(WANTED_SOURCE, WANTED_SHIFT))

    assert reselected(model, dense) == 0
    assert torch.equal(model[0].source, WANTED_SOURCE)
    assert torch.equal(model[0].shift, WANTED_SHIFT)


def test_changes_that_do_not_help_other_pictures_are_taken_back():
    dense = nn.Sequential(layer(WANTED_SOURCE, WANTED_SHIFT, affine=True))
    model = nn.Sequential(layer([0, 1, 2, 3], [[0, 0]] * 4, affine=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward = passes(model, dense, pictures(1), functional.mse_loss)

    assert reselect(model, forward, lambda: torch.zeros(())) == 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_processes_agree_on_the_mean_of_what_they_see():
    dense = nn.Sequential(layer(WANTED_SOURCE, WANTED_SHIFT))
    model = nn.Sequential(layer([0, 1, 2, 3], [[0, 0]] * 4))
    shapes = []

    def mean(tensor):
        shapes.append(list(tensor.shape))
        return tensor

    reselected(model, dense, mean=mean)

    assert [4, 4, 9] in shapes
    assert shapes.count([]) > 2


def test_ghosts_are_chosen_again_until_shifts_are_frozen():
    shifts = ShiftConfig(mode="fixed", reselect_every=3, freeze_at=0.6)

    assert [step for step in range(20) if reselects(shifts, step, 20)] == [3, 6, 9]
    assert not any(reselects(ShiftConfig(mode="fixed"), step, 20) for step in range(20))


@pytest.mark.parametrize("found", [{"mode": "learned"}, {"mode": "fixed", "scope": "layer"}])
def test_only_tables_of_single_ghosts_are_chosen_again(found):
    with pytest.raises(ValidationError, match="reselect_every: goes with mode"):
        ShiftConfig(reselect_every=5, **found)


def test_the_configuration_names_the_key_that_does_not_go_with_the_others(make_config):
    with pytest.raises(InputError, match="reselect_every: goes with mode"):
        make_config(shifts={"reselect_every": 5})


def test_a_run_chooses_again_and_goes_on_to_the_same_bits(make_config, tmp_path):
    tables = {"shifts": {"mode": "fixed", "reselect_every": 2, "freeze_at": 1}}
    config = make_config(**tables, conversion={"ghost_ratio": 0.5}, checkpoints={"every": 3})
    plain = make_config(shifts={"mode": "fixed"}, conversion={"ghost_ratio": 0.5})

    train(config, tmp_path / "whole")
    train(plain, tmp_path / "plain")
    train(config, tmp_path / "stopped")
    for checkpoint in sorted((tmp_path / "stopped" / "checkpoints").iterdir())[1:]:
        checkpoint.unlink()
    (tmp_path / "stopped" / "final.safetensors").unlink()
    train(config, tmp_path / "stopped", resume=True)

    whole = (tmp_path / "whole" / "final.safetensors").read_bytes()
    assert (tmp_path / "stopped" / "final.safetensors").read_bytes() == whole
    assert (tmp_path / "plain" / "final.safetensors").read_bytes() != whole


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_of_reduced_precision_chooses_again(make_config, tmp_path, precision):
    shifts = {"mode": "fixed", "reselect_every": 2, "freeze_at": 1}
    plain = {"training": {"precision": precision}, "conversion": {"ghost_ratio": 0.5}}

    train(make_config(**plain, shifts=shifts), tmp_path / "chosen")
    train(make_config(**plain, shifts={"mode": "fixed"}), tmp_path / "plain")

    found, given = (
        ghost_layers(load_model(tmp_path / name / "final.safetensors"))
        for name in ("chosen", "plain")
    )
    assert any(not torch.equal(found[name].source, given[name].source) for name in found)


def test_a_batch_of_one_leaves_no_other_picture_to_check_a_change_with(make_config, tmp_path):
    shifts = {"mode": "fixed", "reselect_every": 2}

    with pytest.raises(InputError, match=r"training.batch_size: 1 .*reselect_every needs two"):
        train(make_config(shifts=shifts, training={"batch_size": 1}), tmp_path / "run")
