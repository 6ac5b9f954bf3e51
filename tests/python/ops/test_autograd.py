"""Gradients: against finite differences and formulas, what they save, and what is refused."""

import pytest
import torch
from ghost_layer_cases import ACTIVATIONS, DENSE_LAYOUTS, LAYOUTS, assert_close, make_layer
from ghostsr_ext import ops, reference
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch.utils._python_dispatch import TorchDispatchMode

EPILOGUES = {
    "plain": {},
    "relu": {"activation": "relu"},
    "affine relu": {"affine": True, "activation": "relu"},
    "everything": {
        "affine": True,
        "ordered": True,
        "residual": True,
        "activation": "relu",
        "residual_scale": 0.5,
    },
    **{name: {"residual": True, **options} for name, options in ACTIVATIONS.items()},
    **{f"{name}, affine": {"affine": True, **options} for name, options in ACTIVATIONS.items()},
}


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("name", EPILOGUES)
def test_gradients_of_fixed_shifts_equal_finite_differences(name, layout):
    layer = make_layer(**EPILOGUES[name], size=(4, 5), intrinsic=3, ghosts=3, in_channels=2)
    arguments = layer.fixed(input=layout, residual=layout)
    leaves = {
        name: value.requires_grad_()
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }

    def function(*values):
        return ops.ghost_conv(**{**arguments, **dict(zip(leaves, values, strict=True))})

    assert torch.autograd.gradcheck(function, tuple(leaves.values()), fast_mode=True)


def test_gradients_of_shift_concat_equal_finite_differences_in_full():
    layer = make_layer(**EPILOGUES["everything"], size=(3, 4), intrinsic=2, ghosts=3)
    arguments = layer.epilogue(intrinsic="channels_last")
    leaves = [arguments[name] for name in ("intrinsic", "gain", "ghost_bias", "residual")]

    def function(intrinsic, gain, ghost_bias, residual):
        changed = {"intrinsic": intrinsic, "gain": gain, "ghost_bias": ghost_bias}
        return ops.shift_concat(**{**arguments, **changed, "residual": residual})

    assert torch.autograd.gradcheck(function, tuple(leaf.requires_grad_() for leaf in leaves))


@pytest.mark.parametrize("layer_scope", [False, True])
def test_the_straight_through_gradient_is_that_of_the_formula(layer_scope):
    layer = make_layer(affine=True, layer_scope=layer_scope, tau=0.4, padding=(1, 1))
    arguments = layer.learned()
    arguments["logits"].requires_grad_()

    output = ops.ghost_conv_learned(**arguments)
    grad_output = torch.randn_like(output)
    (actual,) = torch.autograd.grad(output, arguments["logits"], grad_output)

    intrinsic = torch.nn.functional.conv2d(
        arguments["input"], arguments["weight"], arguments["bias"], padding=1
    )
    padded = torch.nn.functional.pad(intrinsic, (1, 1, 1, 1))
    scores = torch.zeros(4, 9, dtype=torch.float64)
    for ghost, source in enumerate(arguments["source"].tolist()):
        for candidate in range(9):
            dy, dx = candidate // 3 - 1, candidate % 3 - 1
            window = padded[:, source, 1 + dy : 8 + dy, 1 + dx : 10 + dx]
            total = (grad_output[:, 5 + ghost] * window).sum()
            scores[ghost, candidate] = arguments["gain"][ghost] * total
    if layer_scope:
        scores = scores.sum(dim=0, keepdim=True)
    probability = ((arguments["logits"] + arguments["noise"]) / 0.4).softmax(dim=1).detach()
    mean = (probability * scores).sum(dim=1, keepdim=True)
    assert_close({"z": actual}, {"z": probability * (scores - mean) / 0.4})


def test_at_a_low_temperature_the_logits_get_no_gradient():
    arguments = make_layer(tau=1e-3, noise=False).learned()
    # Candidates a whole step apart leave the soft mixture nothing to mix.
    arguments["logits"] = arguments["logits"].argsort(dim=1).double().requires_grad_()

    ops.ghost_conv_learned(**arguments).square().sum().backward()

    assert arguments["logits"].grad.abs().max() < 1e-12


@pytest.mark.parametrize("wanted", ["input", "weight", "bias", "gain", "ghost_bias", "residual"])
def test_a_gradient_wanted_alone_is_the_one_computed_with_the_others(wanted):
    arguments = make_layer(**EPILOGUES["everything"]).fixed()
    arguments[wanted].requires_grad_()
    alone = torch.autograd.grad(ops.ghost_conv(**arguments).square().sum(), arguments[wanted])[0]

    (expected,) = torch.autograd.grad(
        reference.ghost_conv(**arguments).square().sum(), arguments[wanted]
    )

    assert_close({wanted: alone}, {wanted: expected})


@pytest.mark.parametrize("wanted", ["logits", "noise"])
@pytest.mark.parametrize("name", EPILOGUES)
def test_the_logits_and_the_noise_have_a_gradient_each_without_the_other(name, wanted):
    arguments = make_layer(**EPILOGUES[name]).learned()
    arguments[wanted].requires_grad_()
    output = ops.ghost_conv_learned(**arguments)
    alone = torch.autograd.grad(output.square().sum(), arguments[wanted])[0]

    (expected,) = torch.autograd.grad(
        reference.ghost_conv_learned(**arguments).square().sum(), arguments[wanted]
    )

    assert_close({wanted: alone}, {wanted: expected})


def test_an_output_used_twice_collects_both_gradients():
    arguments = make_layer().fixed()
    arguments["input"].requires_grad_()
    output = ops.ghost_conv(**arguments)
    (twice,) = torch.autograd.grad((output + output).sum(), arguments["input"], retain_graph=True)
    (once,) = torch.autograd.grad(output.sum(), arguments["input"])

    assert_close({"input": twice}, {"input": 2 * once})


@pytest.mark.parametrize("kind", ["fixed", "learned"])
@pytest.mark.parametrize("wanted", ["input", "weight", "gain"])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_double_backward_is_refused_by_name(kind, wanted, activation):
    arguments = getattr(make_layer(affine=True, activation=activation), kind)()
    arguments[wanted].requires_grad_()
    operator = ops.ghost_conv if kind == "fixed" else ops.ghost_conv_learned
    (gradient,) = torch.autograd.grad(
        operator(**arguments).pow(3).sum(), arguments[wanted], create_graph=True
    )

    with pytest.raises(RuntimeError, match=r"ghostsr::\w+: double backward is not supported"):
        torch.autograd.grad(gradient.square().sum(), arguments[wanted])


def test_double_backward_through_the_logits_is_refused_by_name():
    arguments = make_layer().learned()
    arguments["logits"].requires_grad_()
    output = ops.ghost_conv_learned(**arguments)
    (gradient,) = torch.autograd.grad(output.pow(3).sum(), arguments["logits"], create_graph=True)

    with pytest.raises(RuntimeError, match="ghostsr::shift_selection_backward: double backward"):
        torch.autograd.grad(gradient.square().sum(), arguments["logits"])


def test_a_graph_of_gradients_that_is_never_differentiated_is_harmless():
    arguments = make_layer(affine=True).fixed()
    arguments["input"].requires_grad_()
    (kept,) = torch.autograd.grad(
        ops.ghost_conv(**arguments).square().sum(), arguments["input"], create_graph=True
    )
    (plain,) = torch.autograd.grad(ops.ghost_conv(**arguments).square().sum(), arguments["input"])

    assert torch.equal(kept, plain)


def _saved_bytes(layer, *inputs):
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(*inputs)
    return sum(storages.values())


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("max_shift", [1, 3])
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("affine", [False, True])
def test_a_learned_layer_saves_no_shifted_copies(activation, affine, max_shift, layout):
    layer = GhostConv2d(
        64, 64, 3, padding=1, max_shift=max_shift, activation=activation, affine=affine
    )
    input = LAYOUTS[layout](torch.randn(16, 64, 48, 48)).requires_grad_()

    saved = _saved_bytes(layer, input)

    input_and_intrinsic = 4 * 16 * (64 + 32) * 48 * 48
    assert saved <= 1.5 * input_and_intrinsic


def test_a_fixed_linear_layer_saves_nothing_for_its_shifts():
    layer = GhostConv2d(64, 64, 3, padding=1).freeze_shifts()
    input = torch.randn(4, 64, 16, 16, requires_grad=True)

    saved = _saved_bytes(layer, input)

    parameters = sum(parameter.nbytes for parameter in layer.parameters())
    tables = sum(buffer.nbytes for buffer in layer.buffers())
    assert saved <= input.nbytes + parameters + tables


def test_a_relu_after_a_residual_saves_the_output_alone_besides_the_input():
    layer = FusedConv2d(8, 8, 3, padding=1, activation="relu")
    input, residual = torch.randn(2, 2, 8, 16, 16, requires_grad=True).unbind()

    saved = _saved_bytes(layer, input.detach().clone().requires_grad_(), residual)

    assert saved <= 2 * 4 * 2 * 8 * 16 * 16 + layer.weight.nbytes


class _Called(TorchDispatchMode):
    """The names of the package's operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "ghostsr":
            self.names.append(function._schema.name.removeprefix("ghostsr::"))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
def test_a_layer_of_fixed_shifts_is_one_operator_while_gradients_are_recorded(
    kind, activation, residual
):
    layer = kind(8, 8, 3, padding=1, activation=activation)
    if kind is GhostConv2d:
        layer.freeze_shifts()
    input = torch.randn(2, 8, 5, 6)

    with _Called() as called:
        layer(input, input if residual else None)

    assert called.names == ["ghost_conv"]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
def test_the_gradient_of_a_layer_of_fixed_shifts_is_one_operator(kind, activation, residual):
    layer = kind(8, 8, 3, padding=1, activation=activation)
    if kind is GhostConv2d:
        layer.freeze_shifts()
    input = torch.randn(2, 8, 5, 6, requires_grad=True)
    output = layer(input, input if residual else None)

    with _Called() as called:
        output.sum().backward()

    assert called.names == ["ghost_conv_backward"]


def test_a_residual_alone_with_a_gradient_saves_nothing_of_the_convolution():
    input, weight = _plain_arguments()
    residual = torch.randn(1, 4, 6, 6, requires_grad=True)

    output = ops.ghost_conv(input, weight, None, *_NO_GHOSTS, padding=1, residual=residual)
    input.add_(1)
    output.sum().backward()

    assert torch.equal(residual.grad, torch.ones_like(residual))


def test_the_bias_of_no_ghosts_gets_an_empty_gradient():
    input, weight = _plain_arguments()
    ghost_bias = torch.zeros(0, requires_grad=True)

    ops.ghost_conv(
        input, weight, None, *_NO_GHOSTS, padding=1, ghost_bias=ghost_bias
    ).sum().backward()

    assert ghost_bias.grad is not None
    assert ghost_bias.grad.shape == (0,)


def test_slopes_beside_another_activation_are_refused_while_gradients_are_recorded():
    input, weight = _plain_arguments()

    with pytest.raises(RuntimeError, match='prelu_weight: found a tensor beside activation "relu"'):
        ops.ghost_conv(
            input,
            weight.requires_grad_(),
            None,
            *_NO_GHOSTS,
            padding=1,
            activation="relu",
            prelu_weight=torch.ones(1),
        )


def test_a_weight_without_axes_is_refused_by_name_while_gradients_are_enabled():
    input, _ = _plain_arguments()

    with pytest.raises(RuntimeError, match="weight: found shape"):
        ops.ghost_conv(input, torch.tensor(1.0), None, *_NO_GHOSTS, padding=1)


_NO_GHOSTS = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64))


def _plain_arguments():
    torch.manual_seed(0)
    return torch.randn(1, 3, 6, 6), torch.randn(4, 3, 3, 3)
