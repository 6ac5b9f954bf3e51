"""A fused network computes what the network computed, on fused layers."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from ghostsr_ext.errors import InputError
from ghostsr_ext.fusion import fuse, fuse_in_place
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch_networks import PlainCompact, PlainRRDBNet

WIDTH = 8


class Network(nn.Module):
    """Two convolutions, an activation, and a forward that each test writes."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.other = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        for name, part in parts.items():
            self.add_module(name, part)
        type(self)._steps[id(self)] = forward
        self.number = id(self)

    _steps: ClassVar[dict[int, Callable[..., Tensor]]] = {}

    def forward(self, x):
        return type(self)._steps[self.number](self, x)


def picture(rows: int = 21, columns: int = 26, channels: int = WIDTH, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, channels, rows, columns, generator=generator)


def check_equal(module: nn.Module, *inputs: Tensor, example: object = None) -> nn.Module:
    """Fuse and compare outputs, gradients and what the call does to its input."""
    inputs = inputs or (picture(),)
    state = copy.deepcopy(module.state_dict())
    fused = fuse(module, example=example)
    assert all(
        torch.equal(a, b) for a, b in zip(state.values(), module.state_dict().values(), strict=True)
    )
    for layout in (torch.contiguous_format, torch.channels_last):
        for grad in (False, True):
            given = [x.clone(memory_format=layout) for x in inputs]
            wanted = [x.clone(memory_format=layout) for x in inputs]
            with torch.set_grad_enabled(grad):
                output, expected = fused(*given), module(*wanted)
            extent = float((expected.max() - expected.min()).detach())
            torch.testing.assert_close(output, expected, rtol=0, atol=1e-4 * extent)
            for one, other in zip(given, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
            if grad:
                sizes = gradient_sizes(fused, output), gradient_sizes(module, expected)
                torch.testing.assert_close(*sizes, rtol=1e-3, atol=1e-5)
    return fused


def gradient_sizes(module: nn.Module, output: Tensor) -> list[float]:
    """Norms of the gradients of all parameters, which a fused network has in another order."""
    parameters = list(module.parameters())
    found = torch.autograd.grad(output.square().mean(), parameters, allow_unused=True)
    return sorted(0.0 if g is None else float(g.norm()) for g in found)


ACTIVATIONS = {
    "ReLU": (lambda: nn.ReLU(), "relu"),
    "ReLU in place": (lambda: nn.ReLU(inplace=True), "relu"),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), "leaky_relu"),
    "LeakyReLU in place": (lambda: nn.LeakyReLU(0.05, inplace=True), "leaky_relu"),
    "PReLU": (lambda: nn.PReLU(), "prelu"),
    "PReLU of each channel": (lambda: nn.PReLU(WIDTH), "prelu"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_modules_are_folded(name: str) -> None:
    make, activation = ACTIVATIONS[name]
    fused = check_equal(Network(lambda m, x: m.other(m.act(m.conv(x))), act=make()))
    assert fused.conv.activation == activation
    assert fused.other.activation == "none"
    assert fused.fusion_report.activations == 1


FUNCTIONS = {
    "F.relu": lambda m, x: functional.relu(m.conv(x)),
    "F.relu in place": lambda m, x: functional.relu(m.conv(x), inplace=True),
    "torch.relu": lambda m, x: torch.relu(m.conv(x)),
    "torch.relu_": lambda m, x: torch.relu_(m.conv(x)),
    "relu_": lambda m, x: m.conv(x).relu_(),
    "F.leaky_relu": lambda m, x: functional.leaky_relu(m.conv(x), 0.3),
    "F.leaky_relu, named, in place": lambda m, x: functional.leaky_relu(
        m.conv(x), negative_slope=0.3, inplace=True
    ),
    "F.leaky_relu, default": lambda m, x: functional.leaky_relu(m.conv(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_functions_are_folded(name: str) -> None:
    fused = check_equal(Network(FUNCTIONS[name]))
    assert fused.conv.activation in ("relu", "leaky_relu")


class PreluByFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.slope = nn.Parameter(torch.linspace(-0.5, 0.5, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return functional.prelu(self.conv(x), self.slope)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_as_much_is_folded_where_no_gradients_are_recorded(mode: Callable) -> None:
    expected = fuse(PlainRRDBNet(16, 1, 8)).fusion_report

    with mode():
        fused = fuse(PlainRRDBNet(16, 1, 8))

    assert fused.fusion_report == expected
    assert expected.stacked == 12
    fused(torch.rand(1, 3, 8, 8)).sum().backward()


class _Histories(TorchFunctionMode):
    """Counts the results of torch's functions that remember what they were made of."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += isinstance(result, Tensor) and result.grad_fn is not None
        return result


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_no_history_of_the_example_is_recorded(mode: Callable) -> None:
    example = picture(channels=3).requires_grad_()

    with mode(), _Histories() as histories:
        fuse(PlainRRDBNet(16, 1, 8), example)

    assert histories.count == 0


def test_as_much_is_folded_in_place_in_inference_mode() -> None:
    network = PlainRRDBNet(16, 1, 8)

    with torch.inference_mode():
        report = fuse_in_place(network)

    assert report.stacked == 12


def test_prelu_as_a_function_is_folded() -> None:
    module = PreluByFunction()
    fused = check_equal(module)
    assert fused.conv.activation == "prelu"
    assert set(fused.state_dict()) == set(module.state_dict())


RESIDUALS = {
    "x + conv": (lambda m, x: x + m.conv(x), 1.0),
    "conv + x": (lambda m, x: m.conv(x) + x, 1.0),
    "x - conv": (lambda m, x: x - m.conv(x), -1.0),
    "x + 0.2 * conv": (lambda m, x: x + 0.2 * m.conv(x), 0.2),
    "conv * 0.2 + x": (lambda m, x: m.conv(x) * 0.2 + x, 0.2),
    "conv.mul(0.2) + x": (lambda m, x: m.conv(x).mul(0.2) + x, 0.2),
    "conv.mul_(0.2).add_(x)": (lambda m, x: m.conv(x).mul_(0.2).add_(x), 0.2),
    "torch.add with alpha": (lambda m, x: torch.add(x, m.conv(x), alpha=0.5), 0.5),
    "torch.mul, torch.add": (lambda m, x: torch.add(torch.mul(m.conv(x), 0.1), x), 0.1),
    "x.sub with alpha": (lambda m, x: x.sub(m.conv(x), alpha=0.5), -0.5),
    "twice scaled": (lambda m, x: x + 0.5 * (m.conv(x) * 0.5), 0.25),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_are_folded(name: str) -> None:
    forward, scale = RESIDUALS[name]
    fused = check_equal(Network(forward))
    assert fused.fusion_report.residuals == 1
    assert fused.conv.residual_scale == scale


def test_a_residual_before_an_activation_is_folded_with_it() -> None:
    fused = check_equal(Network(lambda m, x: torch.relu(m.conv(x) + x)))
    assert fused.fusion_report.residuals == fused.fusion_report.activations == 1


def test_a_residual_behind_an_activation_stays_behind_it() -> None:
    fused = check_equal(Network(lambda m, x: torch.relu(m.conv(x)) + x))
    assert (fused.fusion_report.residuals, fused.fusion_report.activations) == (0, 1)


def test_the_sum_of_two_convolutions_is_folded_into_one_of_them() -> None:
    fused = check_equal(Network(lambda m, x: torch.relu(m.conv(x) + m.other(x))))
    assert fused.fusion_report.residuals == 1


def test_a_chain_of_residuals_is_folded_into_each_convolution() -> None:
    def forward(m: Network, x: Tensor) -> Tensor:
        y = functional.leaky_relu(m.conv(x) + x, 0.1)
        return m.other(y) * 0.3 + y

    assert check_equal(Network(forward)).fusion_report.residuals == 2


LEFT = {
    "scaled residual": lambda m, x: torch.add(m.conv(x), x, alpha=0.5),
    "conv - x": lambda m, x: m.conv(x) - x,
    "a number": lambda m, x: m.conv(x) + 1.0,
    "itself": lambda m, x: (lambda y: y + y)(m.conv(x)),
    "one channel for all": lambda m, x: m.conv(x) + x[:, :1],
    "one row for all": lambda m, x: m.conv(x) + x.mean(2, keepdim=True),
    "two readers": lambda m, x: (lambda y: torch.relu(y) + torch.sigmoid(y))(m.conv(x)),
    "another activation": lambda m, x: functional.gelu(m.conv(x)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_no_layer_can_do_stays_outside(name: str) -> None:
    report = check_equal(Network(LEFT[name])).fusion_report
    assert (report.residuals, report.activations) == (0, 0)
    assert report.layers == 2


def in_place_with_another_reader(m: Network, x: Tensor) -> Tensor:
    y = m.conv(x)
    return functional.relu_(y) + m.other(y)


def in_place_on_a_view_of_it(m: Network, x: Tensor) -> Tensor:
    y = m.conv(x)
    first = y[:, :4]
    functional.relu_(first)
    return y + x


def input_overwritten_between(m: Network, x: Tensor) -> Tensor:
    features = m.other(x)
    y = m.conv(features)
    features.relu_()
    return torch.relu(y) + features


def residual_overwritten_between(m: Network, x: Tensor) -> Tensor:
    features = m.other(x)
    y = m.conv(x) + features
    features.mul_(3)
    return torch.relu(y) + features


def sum_into_what_is_read_later(m: Network, x: Tensor) -> Tensor:
    features = m.other(x)
    total = features
    total += m.conv(x)
    return total * features


def sum_into_a_view(m: Network, x: Tensor) -> Tensor:
    features = m.other(x)
    half = features[:, :4]
    half += m.conv(x)[:, :4]
    features[:, :, 1:3] = x[:, :, :2]
    return features + x


def sum_into_the_input(m: Network, x: Tensor) -> Tensor:
    x += m.conv(x)
    return m.other(x)


def activation_of_the_input(m: Network, x: Tensor) -> Tensor:
    functional.relu(x, inplace=True)
    return m.conv(x)


def sum_into_private_memory(m: Network, x: Tensor) -> Tensor:
    features = m.other(x)
    features += m.conv(x)
    return torch.relu_(features)


@pytest.mark.parametrize(
    "forward",
    [
        in_place_with_another_reader,
        in_place_on_a_view_of_it,
        input_overwritten_between,
        residual_overwritten_between,
        sum_into_what_is_read_later,
        sum_into_a_view,
        sum_into_the_input,
        activation_of_the_input,
        sum_into_private_memory,
    ],
)
def test_what_is_overwritten_in_place_is_seen_by_all_readers(forward: Callable) -> None:
    with torch.no_grad():
        module = Network(forward).requires_grad_(False)
        fused = fuse(module)
        given, wanted = picture(), picture()
        output, expected = fused(given), module(wanted)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(given, wanted)
    assert "" in fused.fusion_report.rewritten


def test_a_sum_into_memory_of_its_own_is_folded() -> None:
    module = Network(sum_into_private_memory).requires_grad_(False)
    assert fuse(module).fusion_report.residuals == 1


def test_a_layer_called_twice_keeps_what_both_calls_share() -> None:
    fused = check_equal(Network(lambda m, x: torch.relu(m.conv(torch.relu(m.conv(x))))))
    assert fused.conv.activation == "relu"


def test_a_layer_called_twice_is_left_alone_where_the_calls_differ() -> None:
    fused = check_equal(Network(lambda m, x: m.conv(torch.relu(m.conv(x)))))
    assert fused.conv.activation == "none"


def test_a_layer_called_twice_keeps_the_residual_of_one_call() -> None:
    fused = check_equal(Network(lambda m, x: x + m.conv(m.conv(x))))
    assert fused.fusion_report.residuals == 1


def test_a_layer_called_twice_is_not_scaled_at_one_call() -> None:
    fused = check_equal(Network(lambda m, x: x + 0.5 * m.conv(m.conv(x))))
    assert fused.conv.residual_scale == 1


def test_a_factor_alone_is_folded() -> None:
    fused = check_equal(Network(lambda m, x: torch.relu(m.conv(x) * -0.5)))
    assert (fused.conv.residual_scale, fused.conv.activation) == (-0.5, "relu")


def test_a_prelu_behind_two_convolutions_stays_one() -> None:
    module = Network(lambda m, x: m.act(m.other(m.act(m.conv(x)))), act=nn.PReLU())
    fused = check_equal(module)
    assert fused.conv.activation == "none"
    assert len(list(fused.parameters())) == len(list(module.parameters()))


class Recursive(nn.Module):
    """One block under two names, as recursive networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(inplace=True))
        self.second = self.first
        self.plain = nn.Conv2d(WIDTH, WIDTH, 1)
        self.plain.weight = nn.Parameter(torch.randn_like(self.plain.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.second(self.first(x)) + x)


def test_shared_blocks_stay_shared() -> None:
    fused = check_equal(Recursive())
    assert fused.first is fused.second
    assert fused.first[0].activation == "relu"


class Untraceable(nn.Module):
    """A network whose own code asks for sizes, with parts that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )
        self.loose = nn.ModuleList([nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2:
            x = functional.pad(x, (0, 0, 0, 1))
        x = self.body(x)
        for part in self.loose:
            x = part(x)
        return x


def test_what_cannot_be_traced_is_fused_module_by_module() -> None:
    fused = check_equal(Untraceable())
    assert fused.fusion_report.rewritten == ("body",)
    assert fused.body[0].activation == "leaky_relu"
    assert fused.loose[0].activation == "none"
    assert isinstance(fused.loose[0], FusedConv2d)
    assert "" in fused.fusion_report.left
    assert "body" not in str(fused.fusion_report)


class InsideOut(nn.Module):
    """Traceable around a part that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.part = Untraceable()
        self.exit = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.part(torch.relu(self.conv(x)))).relu()


def test_a_part_that_cannot_be_traced_is_called_from_what_can() -> None:
    fused = check_equal(InsideOut())
    assert set(fused.fusion_report.rewritten) == {"", "part.body"}
    assert fused.conv.activation == fused.exit.activation == "relu"


class LoopsOverItsParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] < 100
        kept = []
        for part in self.body:
            x = part(x)
            kept.append(x)
        return kept[0] + kept[1] + x


def test_a_container_whose_parts_are_called_by_others_is_not_rewritten() -> None:
    fused = check_equal(LoopsOverItsParts())
    assert fused.body[0].activation == "none"


class StochasticDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        return y * 0 if self.training else y


def test_what_depends_on_training_mode_still_does() -> None:
    module = nn.Sequential(StochasticDepth(), nn.Conv2d(WIDTH, WIDTH, 1)).train()
    fused = fuse(module)
    assert fused.training
    assert torch.equal(fused[0](picture()), torch.zeros_like(picture()))
    check_equal(module.eval())


def test_batch_norm_still_updates_its_statistics() -> None:
    module = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.ReLU())
    fused = fuse(module)
    module(picture())
    fused(picture())
    torch.testing.assert_close(fused[1].running_mean, module[1].running_mean)
    assert fused[0].activation == "none"
    check_equal(module.eval())


class SizeIsFixed(nn.Module):
    """Tracing takes the number of pixels for constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.size = None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        ramp = torch.linspace(0, 1, 32)[:26]
        return y[..., :26] * ramp[: y.shape[3]] if isinstance(x, Tensor) else y


def test_a_trace_that_computes_something_else_is_not_kept() -> None:
    fused = check_equal(SizeIsFixed(), picture(16, 26))
    assert not fused.fusion_report.rewritten
    assert isinstance(fused.conv, FusedConv2d)


def test_views_that_need_contiguous_maps_still_work() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            batch, channels, rows, columns = x.shape
            return torch.relu(self.conv(x)).view(batch, channels * rows, columns)

    module = Views()
    fused = fuse(module)
    torch.testing.assert_close(fused(picture()), module(picture()), rtol=0, atol=1e-4)
    assert fused.conv.activation == "relu"

    class AsksFirst(Views):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dim() == 4 or x.shape[0] > 0
            return super().forward(x)

    fused = fuse(AsksFirst())
    assert fused(picture()).shape == (2, WIDTH * 21, 26)
    assert fused.fusion_report.left[""].endswith("; its own code needs maps that are contiguous")


def test_maps_are_channels_last_inside_and_come_back_as_they_were_given() -> None:
    seen = []
    module = PlainCompact(WIDTH, 2, 2)
    for fused in (fuse(module), fuse(nn.Sequential(module, Untraced()))):
        network = fused if isinstance(fused, PlainCompact) else fused[0]
        network.body[2].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        output = fused(picture(channels=3))
        assert seen.pop().is_contiguous(memory_format=torch.channels_last)
        assert output.is_contiguous()
        output = fused(picture(channels=3).contiguous(memory_format=torch.channels_last))
        assert output.is_contiguous(memory_format=torch.channels_last)


class Untraced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 4
        return x


def test_hooks_are_called_with_what_they_were_called_with() -> None:
    module = Network(lambda m, x: torch.relu(m.other(torch.relu(m.conv(x)))))
    seen = []
    module.conv.register_forward_hook(lambda _m, _x, output: seen.append(output.clone()))
    fused = fuse(module)
    seen.clear()
    module(picture())
    fused(picture())
    torch.testing.assert_close(seen[0], seen[1])
    assert type(fused.conv) is nn.Conv2d
    assert fused.fusion_report.left["conv"] == "it has hooks"
    assert fused.other.activation == "relu"


def test_hooks_of_blocks_are_called() -> None:
    module = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.ReLU())
    module[0].register_forward_hook(lambda _m, _x, output: output + 1)
    check_equal(module, picture(channels=3))


class Weighted(nn.Conv2d):
    """A subclass that does more than a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


LEFT_ALONE = {
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(WIDTH, WIDTH, 3)),
    "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3)),
    "old weight_norm": lambda: torch.nn.utils.weight_norm(nn.Conv2d(WIDTH, WIDTH, 3)),
    "old spectral_norm": lambda: torch.nn.utils.spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3)),
    "subclass": lambda: Weighted(WIDTH, WIDTH, 3),
    "transposed": lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", LEFT_ALONE)
def test_other_layers_are_left_alone(name: str) -> None:
    other = LEFT_ALONE[name]()
    module = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3), nn.ReLU(), other, nn.ReLU()).eval()
    fused = check_equal(module)
    assert type(fused[2]).__name__ == type(other).__name__
    assert fused[0].activation == "relu"


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes_are_kept(mode: str) -> None:
    check_equal(
        nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 5, padding=2, padding_mode=mode), nn.ReLU()),
    )


@pytest.mark.parametrize(
    "arguments",
    [{"stride": 2}, {"dilation": 2}, {"groups": 4}, {"padding": "same"}, {"bias": False}],
)
def test_arguments_of_convolutions_are_kept(arguments: dict) -> None:
    fused = check_equal(nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, **arguments), nn.LeakyReLU(0.1)))
    assert fused[0].activation == "leaky_relu"


class ReadsTheWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)) + functional.conv2d(x, self.conv.weight, padding=1)


def test_a_forward_that_reads_the_weight_still_reads_it() -> None:
    check_equal(ReadsTheWeight())


def test_dense_blocks_write_into_a_growing_map() -> None:
    module = PlainRRDBNet(features=16, blocks=2, growth=8)
    fused = check_equal(module, picture(12, 14, channels=3, batch=1))
    report = fused.fusion_report
    assert report.stacked == 2 * 3 * 4
    assert report.activations == 2 * 3 * 4 + 3
    assert report.residuals == 2 * 3 + 1
    assert report.left == {}


class DenseByConcatenation(nn.Module):
    """RDN's way: each layer returns its input with its output behind it."""

    def __init__(self, overwrite: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(WIDTH + 4 * n, 4, 3, padding=1) for n in range(3))
        self.exit = nn.Conv2d(WIDTH + 12, WIDTH, 1)
        self.overwrite = overwrite

    def forward(self, x: Tensor) -> Tensor:
        maps = x
        for layer in self.layers:
            new = torch.relu(layer(maps))
            maps = torch.cat([maps, new], 1)
            if self.overwrite:
                maps.mul_(0.5)
        return self.exit(maps) + x


def test_concatenations_of_concatenations_share_a_map() -> None:
    assert check_equal(DenseByConcatenation()).fusion_report.stacked == 3


def test_concatenations_that_are_overwritten_stay_copies() -> None:
    module = DenseByConcatenation(overwrite=True).requires_grad_(False)
    fused = fuse(module)
    torch.testing.assert_close(fused(picture()), module(picture()), rtol=0, atol=1e-4)
    assert fused.fusion_report.stacked == 0


def piece_overwritten(m: Network, x: Tensor) -> Tensor:
    new = m.conv(x)
    first = m.wide(torch.cat([x, new], 1))
    new.mul_(2)
    return m.wider(torch.cat([x, new, first], 1))


def test_maps_that_change_between_concatenations_stay_copies() -> None:
    module = Network(
        piece_overwritten,
        wide=nn.Conv2d(2 * WIDTH, WIDTH, 1),
        wider=nn.Conv2d(3 * WIDTH, WIDTH, 1),
    ).requires_grad_(False)
    fused = fuse(module)
    torch.testing.assert_close(fused(picture()), module(picture()), rtol=0, atol=1e-4)
    assert fused.fusion_report.stacked == 0


def test_ghost_layers_get_their_epilogue_too() -> None:
    module = nn.Sequential(GhostConv2d(WIDTH, WIDTH, 3, padding=1), nn.LeakyReLU(0.2)).eval()
    module[0].freeze_shifts()
    fused = check_equal(module)
    assert fused[0].activation == "leaky_relu"


def test_fusing_twice_changes_nothing() -> None:
    module = PlainRRDBNet(features=8, blocks=1, growth=4)
    once = fuse(module)
    twice = fuse(once)
    x = picture(channels=3)
    assert torch.equal(once(x), twice(x))


def test_state_dicts_of_the_original_fit_and_come_back() -> None:
    module, other = PlainCompact(WIDTH, 2, 2), PlainCompact(WIDTH, 2, 2)
    fused = fuse(module)
    assert set(fused.state_dict()) == set(module.state_dict())
    for assign in (False, True):
        fused.load_state_dict(other.state_dict(), assign=assign)
        x = picture(channels=3)
        torch.testing.assert_close(fused(x), other(x), rtol=0, atol=1e-4)
    holder = nn.ModuleDict({"inside": fused})
    assert set(holder.state_dict()) == {f"inside.{key}" for key in module.state_dict()}
    holder.load_state_dict({f"inside.{k}": v for k, v in module.state_dict().items()})
    torch.testing.assert_close(fused(x), module(x), rtol=0, atol=1e-4)


def test_a_fused_network_can_be_copied_and_keeps_its_class() -> None:
    module = PlainCompact(WIDTH, 2, 2)
    fused = fuse(module)
    twin = copy.deepcopy(fused)
    assert isinstance(twin, PlainCompact)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    x = picture(channels=3)
    torch.testing.assert_close(fused(x), module(x), rtol=0, atol=1e-4)


class Unwritten(PlainCompact):
    """A network whose own forward stays, but for the layout of its maps."""

    def forward(self, x):
        if x.sum() > 1e9:
            return x
        return super().forward(x)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(PlainCompact(WIDTH, 2, 2), id="epilogues"),
        pytest.param(PlainRRDBNet(features=WIDTH, blocks=1, growth=4), id="stacks"),
        pytest.param(Unwritten(WIDTH, 2, 2), id="layout"),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 3, 3)), id="torch"
        ),
    ],
)
def test_a_fused_network_can_be_pickled(network: nn.Module) -> None:
    fused = fuse(network)
    assert type(fused) is not type(network)

    unpickled = pickle.loads(pickle.dumps(fused))

    assert isinstance(unpickled, type(network))
    x = picture(channels=3)
    expected = fused(x)
    torch.testing.assert_close(unpickled(x), expected, rtol=0, atol=0)
    assert unpickled.state_dict().keys() == fused.state_dict().keys()
    assert str(unpickled.fusion_report) == str(fused.fusion_report)
    with torch.no_grad():
        for parameter in unpickled.parameters():
            parameter.zero_()
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=0)


def test_a_fused_network_can_be_sent_to_another_process(tmp_path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3)).eval()
    fused, x = fuse(network), picture(channels=3)
    torch.save({"network": fused, "input": x}, tmp_path / "fused.pt")

    script = """
import sys, torch
found = torch.load(sys.argv[1], weights_only=False)
torch.save(found["network"](found["input"]).detach(), sys.argv[2])
"""
    output = tmp_path / "output.pt"
    subprocess.run([sys.executable, "-c", script, tmp_path / "fused.pt", output], check=True)

    torch.testing.assert_close(torch.load(output, weights_only=True), fused(x), rtol=0, atol=0)


def test_a_fused_network_compiles() -> None:
    fused = fuse(PlainRRDBNet(features=8, blocks=1, growth=4)).eval()
    x = picture(12, 12, channels=3, batch=1)
    compiled = torch.compile(fused, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), fused(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_fused(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(dtype)
    fused = fuse(module)
    assert fused[0].activation == "relu"
    assert fused(picture(channels=3).to(dtype)).dtype == dtype


def test_several_inputs_are_given_as_a_tuple() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.relu(self.conv(x) + y)

    fused = check_equal(Two(), picture(), picture(), example=(picture(), picture()))
    assert fused.fusion_report.residuals == 1


def test_a_network_that_does_not_run_on_noise_gets_fused_layers_alone() -> None:
    class NeedsTwo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.relu(self.conv(x)) + y

    fused = fuse(NeedsTwo())
    assert isinstance(fused.conv, FusedConv2d)
    assert "pass an example" in fused.fusion_report.left[""]


def test_a_wrong_example_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(
        InputError, match=r"example: the network cannot be run on \[\[1, 5, 8, 8\]\]"
    ):
        fuse(module, torch.zeros(1, 5, 8, 8))
    with pytest.raises(InputError, match="example: found str"):
        fuse(module, "a picture")
    with pytest.raises(InputError, match="module: found Tensor"):
        fuse(torch.zeros(1))


def test_a_network_without_convolutions_is_only_copied() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    fused = fuse(module)
    assert fused.fusion_report.layers == 0
    assert torch.equal(fused(torch.ones(2, 3)), module(torch.ones(2, 3)))
