"""The operators satisfy torch's own checks and compile without graph breaks to the same numbers."""

import pytest
import torch
from ghost_layer_cases import DENSE_LAYOUTS, LAYOUTS, make_layer
from ghostsr_ext import ops
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

OPERATORS = torch.ops.ghostsr
EVERYTHING = {"affine": True, "ordered": True, "residual": True, "activation": "relu"}
CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)
LEAVES = {
    "input",
    "weight",
    "bias",
    "gain",
    "ghost_bias",
    "residual",
    "logits",
    "intrinsic",
    "prelu_weight",
}


def _with_gradients(arguments, wanted):
    return {
        name: value.requires_grad_() if wanted and name in LEAVES and value is not None else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(
    ("kind", "operator", "options"),
    [
        ("fixed", OPERATORS.ghost_conv.default, {}),
        ("fixed", OPERATORS.ghost_conv.default, {**EVERYTHING, "stride": (2, 1)}),
        ("learned", OPERATORS.ghost_conv_learned.default, {}),
        (
            "learned",
            OPERATORS.ghost_conv_learned.default,
            {**EVERYTHING, "layer_scope": True},
        ),
        ("epilogue", OPERATORS.shift_concat.default, EVERYTHING),
        ("fixed", OPERATORS.ghost_conv.default, {**EVERYTHING, "activation": "prelu"}),
        ("learned", OPERATORS.ghost_conv_learned.default, {"activation": "leaky_relu"}),
        ("epilogue", OPERATORS.shift_concat.default, {**EVERYTHING, "activation": "prelu"}),
    ],
)
def test_forward_operators_pass_opcheck(kind, operator, options, gradients):
    layout = "channels_last" if options else "contiguous"
    layer = make_layer(**options)
    arguments = getattr(layer, kind)(input=layout, intrinsic=layout, residual=layout)

    opcheck(operator, (), _with_gradients(arguments, gradients), test_utils=CHECKS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 4])
def test_fake_layouts_are_the_real_ones(layout, dtype, groups):
    layer = make_layer(groups=groups, intrinsic=4, residual=True)
    for operator, arguments in (
        (OPERATORS.ghost_conv.default, layer.fixed(dtype, input=layout)),
        (OPERATORS.shift_concat.default, layer.epilogue(dtype, intrinsic=layout)),
        (OPERATORS.convolution.default, _convolution(layer.fixed(dtype, input=layout))),
    ):
        opcheck(operator, (), arguments, test_utils="test_faketensor")


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 4])
def test_fake_layouts_are_the_real_ones_where_strides_are_ambiguous(layout, channels, size):
    layer = make_layer(size=size, in_channels=channels, intrinsic=channels)
    for operator, arguments in (
        (OPERATORS.ghost_conv.default, layer.fixed(input=layout)),
        (OPERATORS.shift_concat.default, layer.epilogue(intrinsic=layout)),
        (OPERATORS.convolution.default, _convolution(layer.fixed(input=layout))),
    ):
        opcheck(operator, (), arguments, test_utils="test_faketensor")


def _convolution(arguments):
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    return {name: arguments[name] for name in names}


@pytest.mark.parametrize("gradients", [False, True])
def test_convolution_passes_opcheck(gradients):
    arguments = _convolution(make_layer().fixed(input="channels_last"))

    opcheck(
        OPERATORS.convolution.default,
        (),
        _with_gradients(arguments, gradients),
        test_utils=CHECKS,
    )


@pytest.mark.parametrize("mask", [(True, True, True), (True, False, False), (False, False, False)])
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_backward_operators_pass_opcheck(mask, layout):
    layer = make_layer(affine=True, activation="relu")
    epilogue = layer.epilogue(intrinsic=layout)
    grad_output = LAYOUTS[layout](torch.randn(2, 9, 7, 9).double())
    selection = {name: epilogue[name] for name in epilogue if name != "shift"} | layer.selection
    convolution = _convolution(layer.fixed(input=layout))
    del convolution["bias"]
    grad_intrinsic = LAYOUTS[layout](torch.randn(2, 5, 7, 9).double())

    opcheck(
        OPERATORS.shift_concat_backward.default,
        (grad_output,),
        {**epilogue, "output_mask": mask},
        test_utils=CHECKS,
    )
    opcheck(
        OPERATORS.convolution_backward.default,
        (grad_intrinsic,),
        {**convolution, "output_mask": mask},
        test_utils=CHECKS,
    )
    opcheck(
        OPERATORS.shift_selection_backward.default,
        (grad_output,),
        selection,
        test_utils=CHECKS,
    )


def test_select_shift_passes_opcheck():
    opcheck(
        OPERATORS.select_shift.default,
        (torch.randn(3, 9), torch.randn(3, 9), 0.5, 3),
        test_utils=CHECKS,
    )


def test_meta_tensors_give_shapes_without_computing():
    arguments = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value
        for name, value in make_layer(**EVERYTHING, stride=(2, 1)).fixed().items()
    }

    output = ops.ghost_conv(**arguments)

    assert output.is_meta
    assert output.shape == (2, 9, 4, 9)


class _Network(torch.nn.Module):
    """An input layer, a residual block and an output layer, in the three kinds of layers."""

    def __init__(self):
        super().__init__()
        self.head = FusedConv2d(3, 8, 3, padding=1, activation="relu")
        self.learned = GhostConv2d(8, 8, 3, padding=1, affine=True, activation="relu")
        self.frozen = GhostConv2d(8, 8, 3, padding=1, residual_scale=0.1)
        self.frozen.set_tables(torch.arange(4).flip(0), torch.randint(-1, 2, (4, 2)))
        self.frozen.freeze_shifts()

    def forward(self, input):
        features = self.head(input)
        return self.frozen(self.learned(features), features)


def _numbers(function, network, input):
    network.zero_grad()
    torch.manual_seed(3)
    output = function(input)
    output.square().mean().backward()
    return [output.detach(), *(parameter.grad for parameter in network.parameters())]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_compiled_networks_compute_the_same(layout, backend, training):
    torch.compiler.reset()
    network = _Network().to(memory_format=LAYOUT_FORMATS[layout]).train(training)
    network.learned.noise = False
    input = LAYOUTS[layout](torch.randn(2, 3, 9, 10))
    compiled = torch.compile(network, fullgraph=True, backend=backend)

    actual = _numbers(compiled, network, input)

    for ours, theirs in zip(actual, _numbers(network, network, input), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(compiled(input), network(input), rtol=1e-4, atol=1e-6)


LAYOUT_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def test_compiled_training_draws_fresh_noise():
    torch.compiler.reset()
    layer = GhostConv2d(4, 64, 3, padding=1)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    input = torch.randn(1, 4, 8, 8)

    assert not torch.equal(compiled(input), compiled(input))


@pytest.mark.slow
def test_one_compiled_graph_serves_other_sizes():
    torch.compiler.reset()
    network = _Network().eval()
    compiled = torch.compile(network, fullgraph=True, dynamic=True)

    with torch.no_grad(), torch.compiler.set_stance("default"):
        compiled(torch.randn(2, 3, 9, 10))
        with torch.compiler.set_stance("fail_on_recompile"):
            for size in ((3, 3, 12, 7), (5, 3, 21, 33)):
                input = torch.randn(size)
                torch.testing.assert_close(compiled(input), network(input), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_strides_of_an_empty_batch_are_the_real_ones(memory_format):
    image = torch.empty(0, 8, 5, 6).to(memory_format=memory_format)
    weight = torch.randn(4, 8, 3, 3)
    source, shift = torch.zeros(4, dtype=torch.int64), torch.zeros(4, 2, dtype=torch.int64)
    real = torch.ops.ghostsr.ghost_conv(image, weight, None, source, shift, padding=1)

    with FakeTensorMode() as mode:
        tensors = [mode.from_tensor(value) for value in (image, weight)]
        tables = [mode.from_tensor(value) for value in (source, shift)]
        fake = torch.ops.ghostsr.ghost_conv(*tensors, None, *tables, padding=1)

    assert (fake.shape, fake.stride()) == (real.shape, real.stride())
