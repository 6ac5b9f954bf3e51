import copy
import io
import pickle

import pytest
import torch
from ghostsr_ext import nn as ghost_nn
from ghostsr_ext import reference
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, ghost_count
from ghostsr_ext.shift_selection import gumbel_noise
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "same": {"kernel_size": 3, "padding": "same"},
    "same, even filter": {"kernel_size": (4, 2), "padding": "same"},
    "same, dilated": {"kernel_size": (3, 2), "padding": "same", "dilation": (2, 3)},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "stride": {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "without bias": {"kernel_size": 1, "bias": False},
    "reflect": {"kernel_size": 5, "padding": (2, 1), "padding_mode": "reflect"},
    "replicate": {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
    "circular": {"kernel_size": (4, 3), "padding": "same", "padding_mode": "circular"},
    "positional padding": {"kernel_size": 3, "padding": 3, "dilation": 2},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_fused_conv_is_conv2d_with_residual_and_activation(name, activation, with_residual):
    torch.manual_seed(1)
    dense = nn.Conv2d(4, 6, **CONVOLUTIONS[name], dtype=torch.float64)
    torch.manual_seed(1)
    fused = FusedConv2d(
        4,
        6,
        **CONVOLUTIONS[name],
        activation=activation,
        residual_scale=0.5,
        dtype=torch.float64,
    )
    input = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    expected = 0.5 * dense(input)
    residual = torch.randn_like(expected) if with_residual else None
    expected = expected if residual is None else residual + expected
    expected = expected if activation == "none" else expected.relu()

    output = fused(input, residual)

    torch.testing.assert_close(output, expected)
    assert fused.state_dict().keys() == dense.state_dict().keys()
    fused.load_state_dict(dense.state_dict())


ACTIVATIONS = {
    "leaky_relu": ({"activation": "leaky_relu"}, nn.LeakyReLU(0.01)),
    "steeper": ({"activation": "leaky_relu", "negative_slope": 0.2}, nn.LeakyReLU(0.2)),
    "falling": ({"activation": "leaky_relu", "negative_slope": -0.5}, nn.LeakyReLU(-0.5)),
    "prelu": ({"activation": "prelu"}, nn.PReLU(1)),
    "prelu of each channel": ({"activation": "prelu", "prelu_parameters": 6}, nn.PReLU(6)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("kind", ["fused", "frozen", "learned"])
def test_a_layer_ends_with_torchs_activation(name, with_residual, kind):
    options, activation = copy.deepcopy(ACTIVATIONS[name])
    make = FusedConv2d if kind == "fused" else GhostConv2d
    layer = make(4, 6, 3, padding=1, residual_scale=0.5, **options, dtype=torch.float64).eval()
    if kind == "frozen":
        layer.freeze_shifts()
    activation.double()
    if layer.prelu_weight is not None:
        torch.nn.init.uniform_(layer.prelu_weight, -0.5, 1.5)
        activation.load_state_dict({"weight": layer.prelu_weight})
    plain = copy.deepcopy(layer)
    plain.activation = "none"
    inputs = [torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)]
    if with_residual:
        inputs.append(torch.randn(2, 6, 9, 8, dtype=torch.float64, requires_grad=True))

    output, expected = layer(*inputs), activation(plain(*inputs))

    torch.testing.assert_close(output, expected)
    leaves = [*inputs, *(value for key, value in layer.named_parameters() if key != "logits")]
    others = [*inputs, *(value for key, value in plain.named_parameters() if key != "logits")]
    if layer.prelu_weight is not None:
        index = next(i for i, leaf in enumerate(leaves) if leaf is layer.prelu_weight)
        others[index] = activation.weight
    for ours, theirs in zip(
        torch.autograd.grad(output.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), others),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(layer(*inputs), expected)


@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
def test_prelu_owns_its_weight(kind):
    assert "prelu_weight" not in kind(4, 8, 3, activation="leaky_relu").state_dict()
    assert kind(4, 8, 3, activation="prelu").state_dict()["prelu_weight"].tolist() == [0.25]
    layer = kind(4, 8, 3, activation="prelu", prelu_parameters=8, dtype=torch.float64)
    assert torch.equal(layer.state_dict()["prelu_weight"], torch.full((8,), 0.25).double())
    assert isinstance(layer.prelu_weight, nn.Parameter)


@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"activation": "leaky_relu", "negative_slope": 0.2},
        {"activation": "prelu", "prelu_parameters": 8},
    ],
)
def test_epilogue_arguments_build_the_same_epilogue(kind, options):
    layer = kind(4, 8, 3, **options, residual_scale=0.5)

    arguments = ghost_nn.epilogue_arguments(layer)

    assert arguments == options | {"residual_scale": 0.5}
    assert ghost_nn.epilogue_arguments(kind(4, 8, 3, **arguments)) == arguments
    assert all(f"{name}={value}" in repr(layer) for name, value in arguments.items())


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_ghost_layer_stands_where_a_convolution_stood(name, frozen):
    dense = nn.Conv2d(4, 12, **CONVOLUTIONS[name])
    ghost = GhostConv2d(4, 12, **CONVOLUTIONS[name]).eval()
    if frozen:
        ghost.freeze_shifts()
    input = torch.randn(2, 4, 9, 8)

    output = ghost(input)

    assert output.shape == dense(input).shape
    options = {key: value for key, value in CONVOLUTIONS[name].items() if key != "bias"}
    half = nn.Conv2d(4, 6, **options, bias=ghost.bias is not None)
    half.load_state_dict(
        {key: value for key, value in ghost.state_dict().items() if key in ("weight", "bias")}
    )
    expected = reference.shift_concat(half(input), ghost.source, ghost.selected_shift())
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_positional_arguments_are_those_of_conv2d():
    arguments = (4, 8, (3, 1), (2, 1), (1, 0), (1, 2), 2, False, "replicate")
    dense, fused, ghost = (kind(*arguments) for kind in (nn.Conv2d, FusedConv2d, GhostConv2d))

    for layer in (fused, ghost):
        for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
            assert getattr(layer, name) == getattr(dense, name), name
        assert layer.bias is None


@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
@pytest.mark.parametrize("with_residual", [False, True])
def test_a_map_without_a_batch_is_a_batch_of_one(kind, with_residual):
    layer = kind(4, 6, 3, padding=1, activation="relu").eval()
    image = torch.randn(4, 5, 7)
    residual = torch.randn(6, 5, 7) if with_residual else None
    batch = None if residual is None else residual[None]

    assert torch.equal(layer(image, residual), layer(image[None], batch)[0])


def test_half_the_channels_cost_half_the_parameters():
    dense = nn.Conv2d(64, 64, 3)
    ghost = GhostConv2d(64, 64, 3).freeze_shifts()

    counted = sum(parameter.numel() for parameter in ghost.parameters())

    assert 2 * counted == sum(parameter.numel() for parameter in dense.parameters())


@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_layers_move_between_dtypes(kind, dtype):
    layer = kind(4, 8, 3).to(dtype)

    output = layer(torch.randn(1, 4, 6, 6, dtype=dtype))

    assert output.dtype == dtype
    for name, buffer in layer.named_buffers():
        assert buffer.dtype == torch.int64, name


@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
def test_a_channels_last_layer_gives_channels_last_maps_of_the_same_values(kind):
    layer = kind(4, 8, 3).eval()
    input = torch.randn(2, 4, 6, 7)
    expected = layer(input)

    layer.to(memory_format=torch.channels_last)
    output = layer(input)

    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
def test_weights_changed_in_place_count_at_once(kind):
    layer = kind(4, 8, 3, padding=1).eval().to(memory_format=torch.channels_last)
    if kind is GhostConv2d:
        layer.freeze_shifts()
    input = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        before = layer(input)
        layer.bias.zero_()
        layer.weight.mul_(2)
        after = layer(input)
        layer.weight.data.zero_()
        last = layer(input)

    assert not torch.equal(before, after)
    assert torch.equal(last, torch.zeros_like(last))


def test_meta_layers_know_their_shapes():
    for layer in (
        GhostConv2d(4, 8, 3, affine=True, device="meta"),
        FusedConv2d(4, 8, 3, device="meta"),
    ):
        assert layer(torch.empty(2, 4, 6, 6, device="meta")).shape == (2, 8, 4, 4)
        assert all(parameter.is_meta for parameter in layer.parameters())


def test_a_meta_layer_comes_alive_by_assignment_even_across_forms():
    frozen = GhostConv2d(4, 8, 3).freeze_shifts()
    frozen.shift.copy_(torch.tensor([[1, 0], [0, -1], [1, 1], [0, 0]]))
    layer = GhostConv2d(4, 8, 3, device="meta").eval()

    layer.load_state_dict(frozen.state_dict(), assign=True)

    input = torch.randn(1, 4, 6, 6)
    assert torch.equal(layer(input), frozen(input))


def _learned(**options):
    return GhostConv2d(4, 12, 3, padding=1, affine=True, **options)


INPUT = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_freezing_keeps_the_output_of_evaluation(scope):
    layer = _learned(shift_scope=scope, max_shift=2).eval()
    expected = layer(INPUT)

    assert layer.freeze_shifts() is layer

    assert layer.logits is None
    assert torch.equal(layer(INPUT), expected)
    assert not any("logits" in name for name, _ in layer.named_parameters())


def test_a_frozen_layer_computes_the_same_in_training_and_evaluation():
    layer = _learned().freeze_shifts()

    assert torch.equal(layer.train()(INPUT), layer.eval()(INPUT))


@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_learning_starts_from_the_frozen_shifts(scope):
    layer = _learned(shift_scope=scope).eval().freeze_shifts()
    frozen = layer(INPUT)

    assert layer.learn_shifts() is layer

    assert layer.logits.requires_grad
    assert layer.logits.shape == (6 if scope == "channel" else 1, 9)
    assert torch.equal(layer(INPUT), frozen)


def test_learning_one_shift_for_the_layer_needs_equal_shifts():
    layer = _learned(shift_scope="layer").freeze_shifts()
    layer.shift[0] = 1

    with pytest.raises(ValueError, match=r"shift: the ghosts differ.*layer"):
        layer.learn_shifts()


def test_learning_twice_keeps_what_was_learned():
    layer = _learned()
    logits = layer.logits

    layer.learn_shifts()

    assert layer.logits is logits


def test_noise_acts_in_training_alone_and_can_be_turned_off():
    layer = GhostConv2d(4, 128, 3)

    assert not torch.equal(layer(INPUT), layer(INPUT))
    layer.noise = False
    assert torch.equal(layer(INPUT), layer(INPUT))
    without = layer(INPUT)
    layer.noise = True
    layer.eval()
    assert torch.equal(layer(INPUT), layer(INPUT))
    assert torch.equal(layer(INPUT), without)


def test_with_all_ghosts_explored_the_noise_alone_depends_on_the_seed():
    layer = GhostConv2d(4, 128, 3)
    torch.manual_seed(7)
    chosen = (layer.logits + gumbel_noise(layer.logits)).argmax(dim=1)

    torch.manual_seed(7)
    output = layer(INPUT)

    layer.shift.copy_(reference.candidate_shifts(9, chosen.device)[chosen])
    layer.logits = None
    torch.testing.assert_close(output, layer(INPUT))


@pytest.mark.parametrize("estimator", ["straight-through", "reinmax"])
def test_noise_is_added_to_the_part_of_the_ghosts_that_is_explored(estimator):
    layer = GhostConv2d(4, 128, 3)
    layer.estimator = estimator
    layer.exploration_rate = 0.0
    torch.testing.assert_close(layer(INPUT), layer.eval()(INPUT))

    layer.train().exploration_rate = 0.25
    changed = []
    for _ in range(40):
        drawn = layer(INPUT) != layer.eval()(INPUT)
        layer.train()
        changed.append(drawn.any(dim=(0, 2, 3)).float().sum().item())

    # Eight of nine draws differ from the first choice, of 64 ghosts.
    assert 0.2 * 64 * 8 / 9 < sum(changed) / len(changed) < 0.3 * 64 * 8 / 9


def test_reinmax_leaves_the_logits_of_ghosts_alone_that_are_not_explored():
    layer = GhostConv2d(4, 128, 3)
    layer.estimator = "reinmax"
    layer.exploration_rate = 0.25

    layer(INPUT).square().sum().backward()

    learned = layer.logits.grad.ne(0).any(dim=1).float().mean().item()
    assert 0 < learned < 0.6


def test_reinmax_without_noise_learns_nothing():
    layer = GhostConv2d(4, 128, 3)
    layer.estimator = "reinmax"
    layer.noise = False

    layer(INPUT).square().sum().backward()

    assert not layer.logits.grad.any()


def test_the_seed_decides_the_noise():
    layer = GhostConv2d(4, 128, 3)
    outputs = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        outputs.append(layer(INPUT))

    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_the_temperature_scales_the_gradient_of_the_logits_in_training_alone():
    layer = _learned()
    layer.noise = False
    gradients = {}
    for training in (True, False):
        for tau in (1.0, 4.0):
            layer.train(training).tau = tau
            layer.zero_grad()
            layer(INPUT).square().sum().backward()
            gradients[training, tau] = layer.logits.grad

    assert not torch.allclose(gradients[True, 1.0], gradients[True, 4.0])
    assert torch.equal(gradients[False, 1.0], gradients[False, 4.0])
    torch.testing.assert_close(gradients[True, 1.0], gradients[False, 1.0])


def test_training_finds_a_shift():
    torch.manual_seed(0)
    layer = GhostConv2d(1, 2, 1, bias=False, max_shift=1)
    layer.weight.data.fill_(1.0)
    optimizer = torch.optim.SGD([layer.logits], lr=0.01)
    for _ in range(60):
        picture = torch.randn(1, 1, 16, 16)
        target = reference.move(picture, torch.tensor([[-1, 1]]))
        loss = (layer(picture)[:, 1:] - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert layer.selected_shift().tolist() == [[-1, 1]]


def test_whole_models_freeze_and_learn():
    model = nn.Sequential(_learned(), nn.ReLU(), GhostConv2d(12, 4, 1))

    assert list(ghost_nn.ghost_layers(model)) == ["0", "2"]
    assert ghost_nn.freeze_shifts(model) is model
    assert model[0].logits is None
    assert model[2].logits is None
    assert ghost_nn.learn_shifts(model) is model
    assert model[0].logits is not None


FORMS = {"learned": lambda layer: layer, "frozen": lambda layer: layer.freeze_shifts()}


@pytest.mark.parametrize("scope", ["channel", "layer"])
@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("source", FORMS)
def test_state_dicts_load_across_the_learned_and_the_frozen_form(source, to, scope):
    saved = FORMS[source](nn.Sequential(_learned(shift_scope=scope))[0]).eval()
    fresh = FORMS[to](_learned(shift_scope=scope)).eval()

    result = nn.Sequential(fresh).load_state_dict(nn.Sequential(saved).state_dict())

    assert not result.missing_keys
    assert not result.unexpected_keys
    assert (fresh.logits is None) == (to == "frozen")
    assert torch.equal(fresh(INPUT), saved(INPUT))


def test_a_learned_state_loads_with_its_logits_as_they_are():
    saved, fresh = _learned(), _learned()

    fresh.load_state_dict(saved.state_dict())

    assert torch.equal(fresh.logits, saved.logits)


def test_stored_tables_hold_the_selected_shifts():
    layer = _learned()

    state = layer.state_dict()

    assert torch.equal(state["shift"], layer.selected_shift())
    assert set(state) == {
        "weight",
        "bias",
        "gain",
        "ghost_bias",
        "logits",
        "source",
        "shift",
        "order",
    }


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": torch.full((6,), 6)}, "source: found 6..6; 0..5 is allowed"),
        ({"shift": torch.full((6, 2), 2)}, "shift: found 2; at most max_shift = 1 is allowed"),
        ({"shift": torch.zeros(6, 2)}, "shift: found dtype torch.float32; int64 or int32"),
        ({"order": torch.zeros(12, dtype=torch.int64)}, "order: found .*; a permutation of 0"),
        ({"source": torch.zeros(5, dtype=torch.int64)}, r"source: found shape \[5\]; \[6\]"),
    ],
)
def test_stored_tables_are_checked(to, changes, message):
    state = _learned().freeze_shifts().state_dict() | changes
    layer = nn.Sequential(FORMS[to](_learned()))

    with pytest.raises(RuntimeError, match=f"0.{message}"):
        layer.load_state_dict({f"0.{name}": value for name, value in state.items()})


def test_stored_shifts_that_a_layer_wide_shift_cannot_hold_are_refused():
    state = _learned().freeze_shifts().state_dict()
    state["shift"] = torch.tensor([[0, 0]] * 5 + [[1, 0]])

    with pytest.raises(RuntimeError, match="shift: the ghosts differ"):
        _learned(shift_scope="layer").load_state_dict(state)


def test_a_missing_table_is_reported_as_missing():
    state = _learned().state_dict()
    del state["source"]

    with pytest.raises(RuntimeError, match=r"Missing key.*source"):
        _learned().load_state_dict(state)


@pytest.mark.parametrize("form", FORMS)
def test_layers_survive_copying_and_pickling(form):
    layer = FORMS[form](_learned(activation="relu", residual_scale=0.5)).eval()
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    copies = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(stream, weights_only=False),
    ]
    residual = torch.randn(2, 12, 8, 8)

    for other in copies:
        assert torch.equal(other(INPUT, residual), layer(INPUT, residual))
        assert other.weight is not layer.weight
        assert other.state_dict().keys() == layer.state_dict().keys()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_set_tables_decides_where_ghosts_come_from(form, dtype):
    layer = FORMS[form](_learned()).eval()
    source = torch.tensor([5, 5, 0, 1, 2, 3], dtype=dtype)
    shift = torch.tensor([[1, 1], [-1, 0], [0, 0], [0, 1], [1, -1], [0, -1]], dtype=dtype)
    order = torch.randperm(12).to(dtype)

    assert layer.set_tables(source, shift, order) is layer

    assert torch.equal(layer.selected_shift(), shift.long())
    intrinsic = functional.conv2d(INPUT, layer.weight, layer.bias, padding=1)
    expected = reference.shift_concat(
        intrinsic, source, shift, gain=layer.gain, ghost_bias=layer.ghost_bias, order=order
    )
    torch.testing.assert_close(layer(INPUT), expected, rtol=1e-4, atol=1e-5)


TABLES = {
    "source": torch.zeros(6, dtype=torch.int64),
    "shift": torch.zeros(6, 2, dtype=torch.int64),
    "order": torch.arange(12),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": TABLES["source"][:5]}, r"source: found shape \[5\]; \[6\] is needed"),
        ({"source": TABLES["source"] - 1}, r"source: found -1\.\.-1; 0\.\.5 is allowed"),
        ({"source": TABLES["source"] + 6}, r"source: found 6\.\.6; 0\.\.5 is allowed"),
        ({"source": torch.zeros(6)}, "source: found dtype torch.float32; int64 or int32 is needed"),
        ({"shift": TABLES["shift"].t()}, r"shift: found shape \[2, 6\]; \[6, 2\] is needed"),
        ({"shift": TABLES["shift"] - 2}, "shift: found 2; at most max_shift = 1 is allowed"),
        ({"order": torch.arange(11)}, r"order: found shape \[11\]; \[12\] is needed"),
        ({"order": torch.arange(12) + 1}, r"order: found \[1, .*; a permutation of 0\.\.11"),
        ({"order": TABLES["order"] // 2}, "order: found .*; a permutation of 0..11 is needed"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_set_tables_refuses_and_changes_nothing(form, changes, message):
    layer = FORMS[form](_learned())
    before = copy.deepcopy(layer.state_dict())

    with pytest.raises(ValueError, match=message):
        layer.set_tables(**{**TABLES, **changes})

    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ghost_ratio": 1.0}, "ghost_ratio: found 1.0; 0 <= ghost_ratio < 1 is allowed"),
        ({"ghost_ratio": -0.1}, "ghost_ratio: found -0.1"),
        ({"ghost_ratio": float("nan")}, "ghost_ratio: found nan"),
        ({"max_shift": 8}, "max_shift: found 8; 0 to 7 is allowed"),
        ({"max_shift": -1}, "max_shift: found -1"),
        ({"shift_scope": "pixel"}, 'shift_scope: found "pixel"; allowed are channel, layer'),
        (
            {"activation": "gelu"},
            'activation: found "gelu"; allowed are none, relu, leaky_relu, prelu',
        ),
        ({"negative_slope": float("inf")}, "negative_slope: found inf; a finite number"),
        ({"activation": "prelu", "prelu_parameters": 4}, "prelu_parameters: found 4; 1 or out_ch"),
        ({"groups": 0}, "groups: found 0; a divisor of out_channels = 8 is needed"),
        ({"groups": 3}, "groups: found 3; a divisor of out_channels = 8 is needed"),
        ({"padding_mode": "mirror"}, "padding_mode"),
        ({"padding": "full"}, "padding"),
    ],
)
def test_a_ghost_layer_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        GhostConv2d(4, 8, 3, **arguments)


def test_a_fused_layer_refuses_an_unknown_activation():
    with pytest.raises(ValueError, match='activation: found "gelu"; allowed are none, relu'):
        FusedConv2d(4, 8, 3, activation="gelu")


def test_the_printed_layer_tells_its_arguments():
    layer = GhostConv2d(4, 8, 3, max_shift=2, activation="relu", residual_scale=0.1)

    text = repr(layer.freeze_shifts())

    assert "4, 4 + 4, kernel_size=(3, 3)" in text
    assert "max_shift=2" in text
    assert "shifts=frozen, activation=relu, residual_scale=0.1" in text
    assert "activation=relu" in repr(FusedConv2d(4, 8, 3, activation="relu"))


@given(
    st.integers(1, 64),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([1, 2, 3, 4, 8]),
)
def test_ghost_count_is_the_largest_part_that_suits_the_groups(per_group, ratio, groups):
    outputs = per_group * groups

    ghosts = ghost_count(outputs, ratio, groups)

    intrinsic = outputs - ghosts
    assert ghosts >= 0
    assert intrinsic >= groups
    assert intrinsic % groups == 0
    assert ghosts <= ratio * outputs + 1e-6
    assert ghosts + groups > ratio * outputs - 1e-6 or intrinsic == groups


@given(st.integers(1, 100), st.integers(0, 99))
def test_ghost_count_of_an_exact_part_is_exact(hundreds, percent):
    assert ghost_count(100 * hundreds, percent / 100) == percent * hundreds


@pytest.mark.parametrize(
    ("outputs", "ratio", "expected"), [(64, 0.5, 32), (3, 0.5, 1), (1, 0.9, 0)]
)
def test_ghost_count_rounds_down(outputs, ratio, expected):
    assert ghost_count(outputs, ratio) == expected


@pytest.mark.parametrize("kind", [FusedConv2d, GhostConv2d])
def test_parameters_drawn_anew_are_those_of_a_new_layer(kind):
    options = {"activation": "prelu"} | ({"affine": True} if kind is GhostConv2d else {})
    torch.manual_seed(5)
    new = kind(4, 8, 3, **options)
    layer = kind(4, 8, 3, **options)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 7.0)

    torch.manual_seed(5)
    layer.reset_parameters()

    for (name, parameter), expected in zip(layer.named_parameters(), new.parameters(), strict=True):
        assert torch.equal(parameter, expected), name


def test_torchs_defaults_do_not_reach_into_a_layer():
    layer = GhostConv2d(4, 8, 3, padding=1, affine=True, device="cpu", dtype=torch.float32)
    input = torch.randn(1, 4, 6, 6)
    source, shift = torch.arange(4).flip(0), torch.ones(4, 2, dtype=torch.int64)
    dense = FusedConv2d(4, 8, 3, activation="prelu", device="cpu", dtype=torch.float32)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        layer.set_tables(source, shift)
        layer.freeze_shifts().learn_shifts()
        layer.load_state_dict(layer.state_dict())
        outputs = [layer.eval()(input), layer.freeze_shifts()(input), dense(input)]
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)

    for tensor in (*layer.parameters(), *layer.buffers(), *outputs):
        assert tensor.device.type == "cpu"
        assert tensor.dtype in (torch.float32, torch.int64)
