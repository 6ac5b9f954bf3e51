"""Layers under forward-mode differentiation and ``torch.func`` give what plain torch gives."""

import copy

import pytest
import torch
from ghost_layer_cases import make_layer
from ghostsr_ext import ops, reference
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

EVERYTHING = {"affine": True, "ordered": True, "residual": True, "residual_scale": 0.5}
OPERATORS = {
    "fixed": (ops.ghost_conv, torch.ops.ghostsr.ghost_conv, reference.ghost_conv),
    "learned": (
        ops.ghost_conv_learned,
        torch.ops.ghostsr.ghost_conv_learned,
        reference.ghost_conv_learned,
    ),
    "epilogue": (ops.shift_concat, torch.ops.ghostsr.shift_concat, reference.shift_concat),
}


def _functions(kind, typed, activation="leaky_relu"):
    """Return the operator and its twin as functions of their floating-point tensors."""
    layer = make_layer(**EVERYTHING, activation=activation, size=(4, 5), batch=1)
    arguments = getattr(layer, kind)()
    if kind == "learned":
        arguments["noise"] = None
    leaves = {
        name: value
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }

    def function(operator):
        return lambda *values: operator(**(arguments | dict(zip(leaves, values, strict=True))))

    typed_operator, packet, twin = OPERATORS[kind]
    return function(typed_operator if typed else packet), function(twin), tuple(leaves.values())


@pytest.mark.parametrize("typed", [False, True], ids=["torch.ops", "typed"])
@pytest.mark.parametrize("kind", OPERATORS)
def test_jvp(kind, typed):
    function, twin, values = _functions(kind, typed)
    tangents = tuple(torch.randn_like(value) for value in values)

    for ours, theirs in zip(
        jvp(function, values, tangents), jvp(twin, values, tangents), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("kind", OPERATORS)
def test_dual_numbers(kind, recording):
    function, twin, values = _functions(kind, True)
    tangents = tuple(torch.randn_like(value) for value in values)
    _, expected = jvp(twin, values, tangents)

    with forward_ad.dual_level(), torch.set_grad_enabled(recording):
        duals = [forward_ad.make_dual(*pair) for pair in zip(values, tangents, strict=True)]
        tangent = forward_ad.unpack_dual(function(*duals)).tangent

    torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("typed", [False, True], ids=["torch.ops", "typed"])
@pytest.mark.parametrize("transform", [jacrev, jacfwd])
@pytest.mark.parametrize("kind", OPERATORS)
def test_jacobians(kind, transform, typed):
    function, twin, values = _functions(kind, typed)

    ours, theirs = transform(function)(*values), transform(twin)(*values)

    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", OPERATORS)
def test_gradients_of_gradients(kind):
    function, twin, values = _functions(kind, True, activation="none")

    def second(one):
        first = grad(lambda *all: one(*all).square().sum())
        return grad(lambda *all: first(*all).square().sum())(*values)

    torch.testing.assert_close(second(function), second(twin))


@pytest.mark.parametrize("typed", [False, True], ids=["torch.ops", "typed"])
@pytest.mark.parametrize("kind", OPERATORS)
def test_vmap_over_every_tensor(kind, typed):
    function, twin, values = _functions(kind, typed)
    stacked = tuple(torch.stack([value, value + 1]) for value in values)

    torch.testing.assert_close(vmap(function)(*stacked), vmap(twin)(*stacked))


@pytest.mark.parametrize("kind", OPERATORS)
def test_vmap_of_gradients(kind):
    function, twin, values = _functions(kind, True)
    stacked = tuple(torch.stack([value, value + 1]) for value in values)

    def gradient(one):
        return vmap(grad(lambda *all: one(*all).square().sum()))(*stacked)

    torch.testing.assert_close(gradient(function), gradient(twin))


def _layer(kind):
    if kind == "fused":
        return FusedConv2d(4, 6, 3, padding=1, activation="prelu").eval()
    layer = GhostConv2d(4, 6, 3, padding=1, affine=True, activation="relu").eval()
    return layer.freeze_shifts() if kind == "frozen" else layer


@pytest.mark.parametrize("kind", ["fused", "frozen", "learned"])
def test_layers_in_functional_call_and_its_gradients(kind):
    layer = _layer(kind)
    input = torch.randn(2, 4, 6, 6)
    state = {name: value.detach() + 0.1 for name, value in layer.named_parameters()}
    other = copy.deepcopy(layer)
    other.load_state_dict(state, strict=False)

    gradients = grad(lambda values: functional_call(layer, values, (input,)).square().sum())(state)

    other(input).square().sum().backward()
    torch.testing.assert_close(functional_call(layer, state, (input,)), other(input))
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["fused", "frozen", "learned"])
@pytest.mark.parametrize("recording", [False, True])
def test_an_ensemble_of_layers_is_its_members(kind, recording):
    layers = [_layer(kind) for _ in range(3)]
    for layer in layers:
        torch.nn.init.normal_(layer.weight)
    parameters, buffers = stack_module_state(layers)
    input = torch.randn(2, 4, 6, 6)

    with torch.set_grad_enabled(recording):
        together = vmap(
            lambda params, tables: functional_call(layers[0], (params, tables), (input,))
        )(parameters, buffers)

    expected = torch.stack([layer(input) for layer in layers])
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


def test_vjp_of_a_layer():
    layer = _layer("frozen")
    input = torch.randn(1, 4, 5, 5, requires_grad=True)
    output, pull = vjp(layer, input)
    (expected,) = torch.autograd.grad(layer(input), input, torch.ones_like(output))

    torch.testing.assert_close(pull(torch.ones_like(output))[0], expected)
