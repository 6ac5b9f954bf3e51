import pytest
import torch
from ghostsr_ext.training.config import LossConfig
from ghostsr_ext.training.losses import FeatureTap, charbonnier_loss, feature_loss, pixel_loss
from torch import nn


def test_each_kind_is_its_closed_form():
    output, target = torch.tensor([0.0, 3.0]), torch.tensor([0.0, -1.0])

    assert pixel_loss(LossConfig(kind="l1"))(output, target) == 2
    assert pixel_loss(LossConfig(kind="l2"))(output, target) == 8
    charbonnier = pixel_loss(LossConfig(kind="charbonnier", charbonnier_epsilon=3))
    assert charbonnier(output, target) == (3 + 5) / 2


def test_charbonnier_has_a_gradient_where_pictures_are_equal():
    output = torch.zeros(4, requires_grad=True)

    charbonnier_loss(output, torch.zeros(4)).backward()

    assert torch.equal(output.grad, torch.zeros(4))


def test_features_of_every_size_count_alike():
    teacher = {"small": [torch.full((2, 3), 0.01)], "large": [torch.full((5,), 100.0)]}
    zeros = {name: [torch.zeros_like(t) for t in tensors] for name, tensors in teacher.items()}

    assert feature_loss(teacher, teacher) == 0
    assert feature_loss(zeros, teacher) == pytest.approx(1)


def test_features_of_silent_layers_make_no_nan():
    silent = {"layer": [torch.zeros(3)]}

    assert feature_loss(silent, silent) == 0


def test_a_tap_records_each_call_of_a_layer_inside_its_block_only():
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    tap = FeatureTap(model, ["1"])

    model(torch.tensor([9.0]))
    with tap.recording() as features:
        model(torch.tensor([-1.0]))
        model(torch.tensor([2.0]))
    model(torch.tensor([9.0]))

    assert features == {"1": [torch.tensor([0.0]), torch.tensor([2.0])]}
