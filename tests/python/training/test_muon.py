import copy

import pytest
import torch
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.training.muon import MuonAdam
from torch import nn

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
FORMATS = (torch.contiguous_format, torch.channels_last)


def network(groups=1, memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    layers = nn.Sequential(FusedConv2d(4, 8, 3, groups=groups), GhostConv2d(8, 6, 3, padding=1))
    return layers.to(memory_format=memory_format)


def optimizer(model):
    return MuonAdam(model, [{"params": list(model.parameters())}], **SETTINGS)


def step(model, method, seed=0):
    image = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    method.zero_grad()
    loss = model(image).square().mean()
    loss.backward()
    method.step()
    return float(loss.detach())


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("groups", [1, 2])
def test_steps_of_convolutions_are_semi_orthogonal_matrices_of_each_group(groups, memory_format):
    model = network(groups, memory_format)
    before = [layer.weight.detach().clone() for layer in model]
    step(model, optimizer(model))

    for layer, weight in zip(model, before, strict=True):
        for part in (layer.weight.detach() - weight).flatten(1).chunk(layer.groups):
            values = torch.linalg.svdvals(part)
            # Five iterations bring singular values near to each other, not to one number.
            assert values.max() < 2.5 * values.min()
            # As large as steps of Adam are in the mean: 0.2 of the learning rate.
            assert part.square().mean().sqrt() == pytest.approx(0.2e-2, rel=0.4)


def test_the_memory_format_makes_no_difference():
    plain, last = (network(memory_format=memory_format) for memory_format in FORMATS)
    for model in (plain, last):
        method = optimizer(model)
        for seed in range(3):
            step(model, method, seed)
    for first, second in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-3)


def test_biases_and_filters_of_one_row_are_adams():
    model = nn.Sequential(FusedConv2d(4, 4, 3, groups=4), FusedConv2d(4, 1, 1))
    twin = nn.Sequential(FusedConv2d(4, 4, 3, groups=4), FusedConv2d(4, 1, 1))
    twin.load_state_dict(model.state_dict())
    step(model, optimizer(model))
    step(twin, torch.optim.Adam(twin.parameters(), **SETTINGS))
    for first, second in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_the_loss_falls():
    model = network()
    method = optimizer(model)
    losses = [step(model, method) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_state_goes_on_with_the_same_bits():
    model = network()
    method = optimizer(model)
    step(model, method)
    twin = network()
    twin.load_state_dict(model.state_dict())
    other = optimizer(twin)
    # Loading shares tensors with what is loaded.
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    step(model, method, 1)
    step(twin, other, 1)
    for first, second in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_rate_of_zero_changes_nothing():
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    method = optimizer(model)
    for group in method.param_groups:
        group["lr"] = 0.0
    step(model, method)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
