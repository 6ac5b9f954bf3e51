"""The paths reported are those that layers take."""

import pytest
import torch
from ghostsr_ext.convolution_paths import convolution_paths
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import EDSR, SRModel, create_model
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.packed_weights import packed_weight_bytes
from torch import nn


class _Ghosts(SRModel):
    """One layer of every kind that matters here."""

    architecture = "ghosts_for_paths"

    def __init__(self):
        super().__init__(config={}, scales=(1,), value_range=1.0)
        self.entry = FusedConv2d(3, 16, 3, padding=1)
        self.ghost = GhostConv2d(16, 16, 3, padding=1)
        self.reflecting = GhostConv2d(16, 16, 3, padding=1, padding_mode="reflect")
        self.valid = FusedConv2d(16, 24, 3, padding="valid")
        self.same = FusedConv2d(24, 16, 3, padding="same")
        self.pointwise = FusedConv2d(16, 16, 1)
        self.grouped = GhostConv2d(16, 16, 3, padding=1, groups=2)
        self.strided = FusedConv2d(16, 16, 3, stride=2, padding=1)
        self.plain = nn.Conv2d(16, 3, 3, padding=1)

    def upscale(self, image, scale):
        output = image
        for layer in self.children():
            output = layer(output)
        return output


def _run(model, size):
    model = model.eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, GhostConv2d):
            module.freeze_shifts()
    with torch.inference_mode():
        model(torch.rand(1, 3, *size))


def _paths(model, size, **arguments):
    return {layer.name: layer.path for layer in convolution_paths(model, size, **arguments)}


@pytest.fixture
def small_edsr():
    return EDSR(scale=2, blocks=1, features=16)


def test_fused_layers_of_enough_channels_take_the_path_of_their_kernel():
    assert _paths(_Ghosts(), (32, 32)) == {
        "entry": "torch",
        "ghost": "winograd",
        "reflecting": "winograd",
        "valid": "winograd",
        "same": "winograd",
        "pointwise": "pointwise",
        "grouped": "winograd",
        "strided": "torch",
        "plain": "torch",
    }


@pytest.mark.parametrize("make", [_Ghosts, lambda: EDSR(scale=2, blocks=1, features=16)])
@pytest.mark.parametrize("path", ["auto", "winograd", "aten"])
@pytest.mark.parametrize("size", [(24, 20), (6, 10), (3, 3)])
def test_the_memory_reported_is_what_the_network_keeps(make, path, size, force_path):
    force_path(path)
    model = make()
    enlarged = tuple(side * model.scale for side in size)
    expected = sum(layer.packed_bytes for layer in convolution_paths(model, enlarged))

    _run(model, size)

    assert packed_weight_bytes(model) == expected
    assert (expected > 0) == (path != "aten") or size == (3, 3)


def test_small_pictures_take_torch(small_edsr):
    assert set(_paths(small_edsr, (4, 4)).values()) == {"torch", "winograd"}
    assert _paths(small_edsr, (4, 4))["body.0.conv1"] == "torch"
    assert _paths(small_edsr, (64, 64))["body.0.conv1"] == "winograd"


@pytest.mark.parametrize(("path", "taken"), [("aten", {"torch"}), ("winograd", {"winograd"})])
def test_a_forced_path_is_the_one_reported(small_edsr, path, taken, force_path):
    force_path(path)

    assert set(_paths(small_edsr, (64, 64)).values()) == taken


def test_layers_that_run_again_are_listed_once():
    model = create_model("carn_m", scale=2)

    names = [layer.name for layer in convolution_paths(model, (64, 64))]

    assert len(names) == len(set(names))
    assert "entry" in names


def test_torch_layers_keep_no_memory(small_edsr):
    for layer in convolution_paths(small_edsr, (64, 64)):
        assert (layer.packed_bytes > 0) == (layer.path == "winograd")


@pytest.mark.parametrize("size", [(0, 4), (4,), (4.5, 4)])
def test_a_size_out_of_its_domain_is_refused(small_edsr, size):
    with pytest.raises(InputError, match="hr_size: got"):
        convolution_paths(small_edsr, size)


def test_a_scale_that_the_network_does_not_serve_is_refused(small_edsr):
    with pytest.raises(InputError, match="scale: found 3; this network serves x2"):
        convolution_paths(small_edsr, scale=3)
