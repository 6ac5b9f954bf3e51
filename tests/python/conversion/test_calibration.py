import pytest
import torch
from ghostsr_ext.conversion import convert, methods
from ghostsr_ext.conversion.calibration import _Stage
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from torch import nn
from torch.nn import functional

INNER = (..., slice(4, -4), slice(4, -4))


@pytest.mark.parametrize("name", ["planted", "planted_fused"])
def test_features_that_are_moved_copies_are_recognised_and_converted_without_loss(name, request):
    dense = request.getfixturevalue(name)
    images = torch.randn(4, 2, 24, 24)
    ghost, report = convert(dense, 0.5, calibration=images, polish_minutes=0)
    assert [layer.name for layer in report.layers] == ["middle"]
    assert sum(report.layers[0].shifts.values()) - report.layers[0].shifts.get("0,0", 0) > 0
    torch.testing.assert_close(ghost(images)[INNER], dense(images)[INNER], rtol=1e-2, atol=1e-2)


def _error(model, dense, images):
    return float((model(images) - dense(images)).square().mean())


class _TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.entry = nn.Conv2d(2, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.exit = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, image):
        return self.exit(self.second(self.first(self.entry(image))))


def test_later_layers_make_up_for_errors_of_earlier_ones():
    dense = _TwoLayers().requires_grad_(False)
    images = torch.randn(6, 2, 24, 24)
    both, _ = convert(dense, 0.5, calibration=images, polish_minutes=0)
    apart, _ = convert(dense, 0.5, calibration=images, polish_minutes=0, layers=["first"])
    alone, _ = convert(dense, 0.5, calibration=images, polish_minutes=0, layers=["second"])
    apart.second = alone.second
    assert _error(both, dense, images) < _error(apart, dense, images)


class _ResidualPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.entry = nn.Conv2d(2, 8, 3, padding=1)
        self.first = FusedConv2d(8, 8, 3, padding=1)
        self.second = FusedConv2d(8, 8, 3, padding=1, residual_scale=0.5)
        self.exit = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, image):
        features = self.first(self.entry(image))
        return self.exit(self.second(features, features))


def test_the_residual_that_a_layer_adds_is_part_of_what_is_wanted_from_it():
    dense = _ResidualPair().requires_grad_(False)
    images = torch.randn(6, 2, 24, 24)
    ghost, report = convert(dense, 0.5, calibration=images, polish_minutes=0)
    features = ghost.first(ghost.entry(images))
    wanted = dense.first(dense.entry(images))
    # Adding the dense output unchanged would leave all of the first layer's error in the stream.
    kept = (features - wanted).square().mean()
    stream = ghost.second(features, features) - dense.second(wanted, wanted)
    untouched = features - wanted
    plain = dense.second(features, features) - dense.second(wanted, wanted)
    assert kept > 0
    assert report.layers[1].relative_error is not None
    assert stream.square().mean() < plain.square().mean() + untouched.square().mean()


class _Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.entry = nn.Conv2d(2, 8, 3, padding=1)
        self.step = nn.Conv2d(8, 8, 3, padding=1)
        self.exit = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, image):
        features = self.entry(image)
        for _ in range(3):
            features = functional.relu(self.step(features)) + features
        return self.exit(features)


def test_a_layer_with_several_uses_is_fitted_to_all_of_them():
    dense = _Recursive().requires_grad_(False)
    images = torch.randn(6, 2, 20, 20)
    ghost, report = convert(dense, 0.5, calibration=images, polish_minutes=0)
    assert isinstance(ghost.step, GhostConv2d)
    assert report.layers[0].uses == 3
    first_use_only, _ = convert(dense, 0.5, layers=["step"], method="kmeans")
    assert _error(ghost, dense, images) < _error(first_use_only, dense, images)


def test_strided_and_reflecting_layers_are_calibrated():
    dense = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 2, 3, padding=1),
    ).requires_grad_(False)
    images = torch.randn(4, 2, 24, 24)
    calibrated, report = convert(dense, 0.5, calibration=images, polish_minutes=0)
    clustered, _ = convert(dense, 0.5)
    assert len(report.layers) == 2
    assert _error(calibrated, dense, images) < _error(clustered, dense, images)


def test_gains_fit_better():
    dense = _TwoLayers().requires_grad_(False)
    images = torch.randn(6, 2, 24, 24)
    plain, affine = (
        convert(dense, 0.5, calibration=images, polish_minutes=0, affine=affine, layers=["first"])[
            1
        ]
        for affine in (False, True)
    )
    assert affine.layers[0].relative_error <= plain.layers[0].relative_error


def test_constant_pictures_convert_without_failing():
    dense = _TwoLayers().requires_grad_(False)
    ghost, _ = convert(dense, 0.5, calibration=torch.zeros(2, 2, 12, 12), polish_minutes=0)
    assert torch.isfinite(ghost(torch.randn(1, 2, 12, 12))).all()


def test_calibration_is_deterministic():
    dense = _TwoLayers()
    images = torch.randn(3, 2, 16, 16)
    first, second = (
        convert(dense, 0.5, calibration=images, polish_minutes=0)[0].state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


class _Blocks(nn.Module):
    """Two blocks whose fusion, which no method converts, adds the residual."""

    def __init__(self):
        super().__init__()
        self.entry = nn.Conv2d(2, 8, 3, padding=1)
        self.first = FusedConv2d(8, 8, 3, padding=1, activation="relu")
        self.fusion = FusedConv2d(16, 8, 1)
        self.second = FusedConv2d(8, 8, 3, padding=1, activation="relu")
        self.exit = nn.Conv2d(8, 2, 3, padding=1)

    def fused(self, image):
        features = self.entry(image)
        return self.fusion(torch.cat([features, self.first(features)], dim=1), features)

    def forward(self, image):
        return self.exit(self.second(self.fused(image)))


CONVERTED = ["first", "second"]


def test_a_dense_layer_between_converted_ones_takes_up_what_they_lost():
    dense = _Blocks().requires_grad_(False)
    before = dense.fusion.weight.clone()
    images = torch.randn(6, 2, 24, 24)
    ghost, report = convert(dense, 0.5, calibration=images, polish_minutes=0, layers=CONVERTED)
    assert report.extra["refitted"] == ["fusion"]

    fitted = (ghost.fused(images) - dense.fused(images)).square().mean()
    ghost.fusion.load_state_dict(dense.fusion.state_dict())
    unfitted = (ghost.fused(images) - dense.fused(images)).square().mean()

    assert fitted < unfitted
    assert torch.equal(dense.fusion.weight, before)


def test_dense_layers_behind_the_last_converted_one_stay_as_they_are():
    dense = _Blocks().requires_grad_(False)
    images = torch.randn(6, 2, 24, 24)
    ghost, _ = convert(dense, 0.5, calibration=images, polish_minutes=0, layers=["first"])
    for name in ("entry", "fusion", "exit"):
        assert torch.equal(getattr(ghost, name).weight, getattr(dense, name).weight)


class _RectifiedSum(nn.Module):
    """The rectifier sees what the layer gives and a residual much larger than that."""

    def __init__(self):
        super().__init__()
        self.entry = nn.Conv2d(2, 8, 3, padding=1)
        self.layer = FusedConv2d(8, 8, 3, padding=1, activation="relu", residual_scale=0.5)
        self.exit = nn.Conv2d(8, 2, 3, padding=1)

    def rectified(self, image):
        features = self.entry(image)
        return self.layer(features, 4 * features)

    def forward(self, image):
        return self.exit(self.rectified(image))


@pytest.mark.parametrize(
    ("network", "layer", "rectified"),
    [
        (_Blocks, "first", lambda network, images: network.first(network.entry(images))),
        (_RectifiedSum, "layer", _RectifiedSum.rectified),
    ],
    ids=["alone", "with a residual"],
)
def test_only_what_a_rectifier_lets_through_is_fitted(monkeypatch, network, layer, rectified):
    dense = network().requires_grad_(False)
    images = torch.randn(6, 2, 24, 24)
    wanted = rectified(dense, images)
    errors = []
    for fits_activation in (True, False):
        if not fits_activation:
            monkeypatch.setattr(_Stage, "_activation", None)
        ghost, _ = convert(dense, 0.5, calibration=images, polish_minutes=0, layers=[layer])
        errors.append((rectified(ghost, images) - wanted).square().mean())
    assert errors[0] < errors[1]


class _Activated(nn.Module):
    """A layer behind which something else applies the activation."""

    def __init__(self, activation):
        super().__init__()
        self.entry = nn.Conv2d(2, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 16, 3, padding=1)
        self.activation = activation
        self.exit = nn.Conv2d(16, 2, 3, padding=1)

    def activated(self, image):
        return self.activation(self.first(self.entry(image)))

    def forward(self, image):
        return self.exit(self.activated(image))


def _slopes():
    prelu = nn.PReLU(16)
    with torch.no_grad():
        prelu.weight.copy_(torch.linspace(-0.2, 0.4, 16))
    return prelu


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), _slopes(), nn.ReLU(), nn.GELU()])
def test_what_an_activation_passes_on_is_fitted_better(activation, affine, monkeypatch):
    # What is taken up by the last layer is not in the maps that are compared.
    monkeypatch.setattr(methods, "find_followers", lambda *_: {})
    dense = _Activated(activation).requires_grad_(False)
    images = torch.randn(6, 2, 24, 24)
    wanted = dense.activated(images)
    errors = []
    for followed in (True, False):
        if not followed:
            monkeypatch.setattr(_Stage, "_activation", None)
        ghost, _ = convert(dense, calibration=images, polish_steps=0, affine=affine)
        features = ghost.first(ghost.entry(images))
        if getattr(ghost.first, "activation", "none") == "none":
            features = ghost.activation(features)
        errors.append((features - wanted).square().mean())
    assert errors[0] < errors[1]


def test_with_gains_a_layer_of_several_uses_is_fitted_no_worse():
    """On maps whose mean is large against their spread."""
    dense = _Recursive().requires_grad_(False)
    dense.entry.bias.fill_(5.0)
    images = torch.randn(6, 2, 20, 20)
    plain, affine = (
        convert(dense, calibration=images, polish_steps=0, affine=affine)[0]
        for affine in (False, True)
    )
    assert _error(affine, dense, images) < 1.05 * _error(plain, dense, images)
