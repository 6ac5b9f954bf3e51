"""Under autocast the operators cast down as convolution does; logits keep their precision."""

import pytest
import torch
from ghost_layer_cases import make_layer
from ghostsr_ext import ops, reference
from ghostsr_ext.nn import FusedConv2d, GhostConv2d

KEPT = {"logits", "noise"}


def _float32(arguments):
    return {
        name: value.float()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in arguments.items()
    }


def _cast(arguments, dtype):
    return {
        name: value.to(dtype)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and name not in KEPT
        else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("kind", "operator"),
    [
        ("fixed", ops.ghost_conv),
        ("learned", ops.ghost_conv_learned),
        ("epilogue", ops.shift_concat),
    ],
)
def test_autocast_equals_an_explicit_cast(kind, operator, dtype):
    layer = make_layer(affine=True, ordered=True, residual=True, activation="relu")
    arguments = _float32(getattr(layer, kind)())

    with torch.autocast("cpu", dtype):
        actual = operator(**arguments)

    assert actual.dtype == dtype
    assert torch.equal(actual, operator(**_cast(arguments, dtype)))


def test_selection_sees_differences_that_two_bytes_would_lose():
    logits = torch.full((4, 9), 1.0)
    logits[:, 7] += 1e-6
    arguments = _float32(make_layer().learned()) | {"logits": logits, "noise": None}
    fixed = _float32(make_layer().fixed())

    with torch.autocast("cpu", torch.bfloat16):
        learned = ops.ghost_conv_learned(**arguments)
        expected = ops.ghost_conv(**{**fixed, "shift": torch.tensor([[1, 0]]).expand(4, 2)})

    assert torch.equal(learned, expected)


@pytest.mark.parametrize("layer", [GhostConv2d, FusedConv2d])
def test_training_under_autocast_gives_float32_gradients(layer):
    layer = layer(4, 8, 3, padding=1, activation="relu")
    input = torch.randn(2, 4, 6, 6, requires_grad=True)

    with torch.autocast("cpu", torch.bfloat16):
        output = layer(input)
        output.float().square().sum().backward()

    assert output.dtype == torch.bfloat16
    assert input.grad.dtype == torch.float32
    for name, parameter in layer.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_layer_kept_in_float32_keeps_its_gradients_when_backward_runs_under_autocast():
    layer = GhostConv2d(4, 8, 3, padding=1, affine=True, activation="relu")
    layer.noise = False
    input = torch.randn(2, 4, 6, 6)
    gradients = []
    for enabled in (False, True):
        layer.zero_grad()
        output = layer(input)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output.backward(torch.linspace(-1, 1, output.numel()).view_as(output))
        gradients.append([parameter.grad for parameter in layer.parameters()])

    assert all(torch.equal(plain, under) for plain, under in zip(*gradients, strict=True))


def test_float64_is_left_alone():
    arguments = make_layer().fixed()

    with torch.autocast("cpu", torch.bfloat16):
        assert ops.ghost_conv(**arguments).dtype == torch.float64


@pytest.mark.parametrize("activation", ["none", "relu", "prelu"])
@pytest.mark.parametrize("kind", ["fixed", "learned", "epilogue"])
def test_a_residual_of_float64_is_added_as_torch_adds_it(kind, activation):
    layer = make_layer(residual=True, activation=activation)
    arguments = _float32(getattr(layer, kind)())
    arguments["residual"] = residual = arguments["residual"].double()
    operator = {"fixed": ops.ghost_conv, "learned": ops.ghost_conv_learned}.get(
        kind, ops.shift_concat
    )

    with torch.autocast("cpu", torch.bfloat16):
        actual = operator(**arguments)
        plain = operator(
            **arguments | {"residual": None, "activation": "none", "prelu_weight": None}
        )

    assert actual.dtype == torch.float64
    expected = reference.activate(
        residual + plain, activation, prelu_weight=layer.tensors.get("prelu_weight")
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kernel", [1, 3])
def test_gradients_asked_for_under_autocast_are_not_cast(kernel):
    torch.manual_seed(0)
    input = torch.randn(1, 16, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    layer = FusedConv2d(16, 16, kernel, padding=kernel // 2)
    output = layer(input)
    cotangent = torch.randn_like(output)
    wanted = (input, layer.weight, layer.bias)
    expected = torch.autograd.grad(output, wanted, cotangent, retain_graph=True)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = torch.autograd.grad(output, wanted, cotangent)

    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
