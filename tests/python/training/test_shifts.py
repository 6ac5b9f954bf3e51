import math

import pytest
import torch
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.training.config import ShiftConfig
from ghostsr_ext.training.shifts import (
    entropy,
    freeze_as,
    learned,
    logits_of,
    set_selection,
    start_shifts,
)
from torch import nn


def converted(shifts):
    layer = GhostConv2d(3, 8, 3, padding=1)
    layer.set_tables(torch.arange(4), torch.tensor(shifts))
    return nn.Sequential(layer.freeze_shifts())


SHIFTS = [[0, 1], [1, 0], [0, 1], [-1, -1]]


def test_learning_starts_from_the_shifts_of_the_conversion():
    model = converted(SHIFTS)

    start_shifts(model, ShiftConfig(confidence=2.5))

    assert learned(model)
    logits = logits_of(model)["0"]
    assert logits.shape == (4, 9)
    assert torch.equal(model[0].selected_shift(), torch.tensor(SHIFTS))
    assert torch.equal(logits.sum(dim=1), torch.full((4,), 2.5))


def test_random_logits_forget_the_conversion():
    model = converted(SHIFTS)

    start_shifts(model, ShiftConfig(init="random"))

    logits = logits_of(model)["0"]
    assert logits.abs().max() <= 1 / 3
    assert logits.unique().numel() == 36


def test_random_logits_are_those_of_the_seed():
    starts = []
    for seed in (3, 3, 4):
        torch.rand(5)
        model = converted(SHIFTS)
        start_shifts(model, ShiftConfig(init="random"), seed)
        starts.append(logits_of(model)["0"])

    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_fixed_shifts_stay_as_converted():
    model = converted(SHIFTS)

    start_shifts(model, ShiftConfig(mode="fixed"))

    assert not learned(model)
    assert torch.equal(model[0].shift, torch.tensor(SHIFTS))


def test_one_shift_a_layer_starts_from_the_most_frequent_one():
    model = converted(SHIFTS)

    start_shifts(model, ShiftConfig(scope="layer"))

    assert logits_of(model)["0"].shape == (1, 9)
    assert torch.equal(model[0].selected_shift(), torch.tensor([[0, 1]] * 4))
    assert model[0].shift_scope == "layer"


def test_noise_can_be_switched_off():
    model = converted(SHIFTS)

    start_shifts(model, ShiftConfig())
    set_selection(model, 0.25, noise=False)

    assert model[0].noise is False
    assert model[0].tau == 0.25


def test_freezing_takes_the_choice_of_another_network():
    model, chosen = converted(SHIFTS), converted([[1, 1]] * 4)
    for network in (model, chosen):
        start_shifts(network, ShiftConfig())

    freeze_as(model, chosen)

    assert not learned(model)
    assert learned(chosen)
    assert torch.equal(model[0].shift, torch.tensor([[1, 1]] * 4))


def test_entropy_is_one_without_a_choice_and_falls_to_zero_with_one():
    assert entropy(torch.zeros(3, 9)) == pytest.approx(1)
    assert entropy(torch.eye(9)[:3] * 1000) == pytest.approx(0)
    half = torch.full((1, 4), -1000.0)
    half[0, :2] = 0
    assert entropy(half) == pytest.approx(math.log(2) / math.log(4))
    assert entropy(torch.zeros(2, 1)) == 0
    assert entropy(torch.zeros(0, 9)) == 0


@pytest.mark.parametrize("scope", ["channel", "layer"])
@pytest.mark.parametrize(
    ("noise", "estimator"),
    [(True, "straight-through"), (False, "straight-through"), (True, "reinmax")],
)
def test_training_finds_the_shifts_that_made_the_target(scope, noise, estimator):
    true = SHIFTS if scope == "channel" else [[1, 0]] * 4
    target_layer, model = converted(true), converted([[0, 0]] * 4)
    model.load_state_dict({**target_layer.state_dict(), "0.shift": torch.zeros(4, 2).long()})
    start_shifts(model, ShiftConfig(scope=scope, confidence=1.0, estimator=estimator))
    model.requires_grad_(False)
    logits = logits_of(model)["0"].requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    before = entropy(logits)

    for step in range(120):
        set_selection(model, tau=0.99**step, noise=noise)
        picture = torch.randn(2, 3, 12, 12)
        loss = (model(picture) - target_layer(picture)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert torch.equal(model[0].selected_shift(), torch.tensor(true))
    assert entropy(logits) < before
