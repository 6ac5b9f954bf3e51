import copy
import weakref

import pytest
import torch
from ghostsr_ext.conversion.eigenbasis import EigenbasisAdam
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch import nn

FORMATS = (torch.contiguous_format, torch.channels_last)


def network(memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    layers = nn.Sequential(
        FusedConv2d(4, 8, 3, groups=2, activation="prelu"),
        GhostConv2d(8, 6, 3, padding=1, affine=True),
    )
    return layers.to(memory_format=memory_format)


def optimizer(model, lr=1e-2):
    return EigenbasisAdam(model, [{"params": list(model.parameters())}], lr=lr)


def images(seed=0):
    return torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def step(model, method, seed=0, *, renew=False):
    torch.manual_seed(seed)
    method.zero_grad()
    inputs = images(seed).to(next(model.parameters()).dtype)
    loss = model(inputs).square().mean()
    loss.backward()
    if renew or not method.ready:
        method.renew(lambda: model(inputs))
    method.step()
    return float(loss.detach())


@pytest.mark.parametrize("groups", [1, 2])
def test_a_step_changes_the_output_by_about_the_rate(groups):
    layer = nn.Conv2d(8, 16, 3, padding=1, groups=groups, bias=False)
    inputs = torch.randn(2, 8, 32, 32) * torch.logspace(-0.5, 0.5, 8).view(8, 1, 1)
    method = EigenbasisAdam(nn.Sequential(layer), [{"params": [layer.weight]}], lr=0.01)
    method.renew(lambda: layer(inputs))
    before = layer(inputs).detach()
    layer.weight.grad = torch.randn_like(layer.weight)
    method.step()
    change = (layer(inputs).detach() - before).square().mean().sqrt()
    assert float(change / before.square().mean().sqrt()) == pytest.approx(0.01, rel=0.3)


def test_the_scale_of_maps_and_weights_makes_no_difference():
    """Maps 255 times larger through weights 255 times smaller give the same network."""
    outputs = []
    for scale in (1.0, 255.0):
        torch.manual_seed(0)
        layer = nn.Conv2d(4, 4, 3)
        with torch.no_grad():
            layer.weight /= scale
        method = EigenbasisAdam(layer, [{"params": list(layer.parameters())}], lr=0.01)
        method.renew(lambda layer=layer, scale=scale: layer(images() * scale))
        for seed in range(3):
            method.zero_grad()
            layer(images(seed) * scale).square().mean().backward()
            method.step()
        outputs.append(layer(images() * scale))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)


def test_a_renewed_basis_is_that_of_the_inputs_and_keeps_the_mean_gradient():
    model = network()
    method = optimizer(model)
    step(model, method)
    weight = model[1].weight
    before = method.state[weight]["mean"] @ method.state[weight]["basis"].transpose(1, 2)
    method.renew(lambda: model(images(1) ** 4))
    state = method.state[weight]
    after = state["mean"] @ state["basis"].transpose(1, 2)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-7)
    turned = state["basis"].transpose(1, 2) @ state["moment"] @ state["basis"]
    largest = turned.abs().amax()
    off = turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))
    assert float(off.abs().amax()) < 1e-5 * float(largest)
    assert bool((state["square"] >= 0).all())


def test_the_memory_format_makes_no_difference():
    # The first steps follow signs of gradients, so that single precision would be chance.
    plain, last = (network(memory_format).double() for memory_format in FORMATS)
    for model in (plain, last):
        method = optimizer(model)
        for seed in range(3):
            step(model, method, seed)
    for first, second in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-7)


def test_parameters_that_belong_to_no_convolution_are_adams():
    model = nn.Sequential(nn.Linear(4, 4))
    twin = copy.deepcopy(model)
    settings = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-12}
    for net, method in ((model, EigenbasisAdam), (twin, torch.optim.Adam)):
        given = (net, [{"params": list(net.parameters())}])
        made = method(*given[method is torch.optim.Adam :], **settings)
        for seed in range(3):
            made.zero_grad()
            net(images(seed)[0, 0, :, :4]).square().mean().backward()
            made.step()
    for first, second in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_a_parameter_left_out_of_steps_goes_on_from_its_own_number():
    model = nn.Linear(4, 4)
    twin = copy.deepcopy(model)
    method = EigenbasisAdam(model, [{"params": list(model.parameters())}], lr=1e-2)
    adam = torch.optim.Adam(twin.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-12)
    for seed in range(6):
        for net, made in ((model, method), (twin, adam)):
            made.zero_grad()
            net(images(seed)[0, 0, :, :4]).square().mean().backward()
            if seed in (1, 2):
                net.bias.grad = None
            made.step()
    for first, second in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_moments_that_were_joined_anew_are_freed():
    model = nn.Linear(4, 4)
    method = optimizer(model)
    model.weight.grad, model.bias.grad = torch.ones(4, 4), torch.ones(4)
    method.step()
    held = weakref.ref(method.state[model.weight]["mean"])
    model.bias.grad = None
    method.step()

    assert held() is None


def test_the_loss_falls():
    model = network()
    method = optimizer(model)
    losses = [step(model, method, renew=number % 10 == 0) for number in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_it_is_ready_when_every_layer_with_a_gradient_was_seen():
    model = network()
    method = optimizer(model)
    assert method.ready
    model(images()).sum().backward()
    assert not method.ready
    method.renew(lambda: model(images()))
    assert method.ready


def test_a_state_goes_on_with_the_same_bits():
    model = network()
    method = optimizer(model)
    step(model, method)
    twin = network()
    twin.load_state_dict(model.state_dict())
    other = optimizer(twin)
    # Loading shares tensors with what is loaded.
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    for renew in (False, True):
        step(model, method, 1, renew=renew)
        step(twin, other, 1, renew=renew)
    for first, second in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_state_whose_moments_lie_apart_goes_on_with_the_same_bits():
    """As checkpoints of versions that did not join moments have them."""
    model = network()
    method = optimizer(model)
    step(model, method)
    twin = network()
    twin.load_state_dict(model.state_dict())
    other = optimizer(twin)
    state = method.state_dict()
    apart = {
        index: {key: copy.deepcopy(value) for key, value in known.items()}
        for index, known in state["state"].items()
    }
    other.load_state_dict({**state, "state": apart})
    for renew in (False, True):
        step(model, method, 1, renew=renew)
        step(twin, other, 1, renew=renew)
    for first, second in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_state_that_is_loaded_between_steps_counts():
    model = network()
    method = optimizer(model)
    step(model, method)
    before = copy.deepcopy((model.state_dict(), method.state_dict()))
    step(model, method, 1)
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    step(model, method, 2)

    model.load_state_dict(before[0])
    method.load_state_dict(before[1])
    step(model, method, 1)

    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter, wanted)


def test_layers_of_one_shape_step_as_each_of_them_alone():
    layers = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1, groups=g) for g in (1, 2, 1)))
    twins = copy.deepcopy(layers)
    inputs = images()
    method = optimizer(layers)
    alone = [optimizer(layer) for layer in twins]
    for _ in range(2):
        for layer, twin, other in zip(layers, twins, alone, strict=True):
            twin.weight.grad = torch.randn_like(twin.weight)
            layer.weight.grad = twin.weight.grad.clone()
            other.renew(lambda twin=twin: twin(inputs))
        method.renew(lambda: [layer(inputs) for layer in layers])
        for made in (method, *alone):
            made.step()
    for parameter, twin in zip(layers.parameters(), twins.parameters(), strict=True):
        torch.testing.assert_close(parameter, twin)


def test_weights_decay_by_the_rate():
    layer = nn.Conv2d(4, 4, 3)
    before = layer.weight.detach().clone()
    method = EigenbasisAdam(layer, [{"params": [layer.weight]}], lr=0.1, weight_decay=0.5)
    method.renew(lambda: layer(images()))
    layer.weight.grad = torch.zeros_like(layer.weight)
    method.step()
    torch.testing.assert_close(layer.weight.detach(), before * 0.95)


def test_inputs_that_are_not_finite_leave_the_basis_as_it_was():
    model = network()
    method = optimizer(model)
    step(model, method)

    method.renew(lambda: model(images() * float("nan")))
    step(model, method, renew=True)

    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
