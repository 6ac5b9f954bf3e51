import copy
import json

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import CARN, EDSR
from ghostsr_ext.nn import FusedConv2d, GhostConv2d, ghost_layers
from ghostsr_ext.profiling import cost
from torch import nn
from torch.nn.utils import parametrizations


def _edsr():
    return EDSR(blocks=2, features=8, residual_scale=1.0)


def _reasons(report):
    return {skip.name: skip.reason for skip in report.skipped}


def test_the_input_model_is_not_changed():
    model = _edsr()
    before = copy.deepcopy(model.state_dict())
    convert(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not ghost_layers(model)


def test_ours_convert_the_layers_that_they_declare():
    model = _edsr()
    ghost, report = convert(model)
    assert list(ghost_layers(ghost)) == model.default_layers()
    assert [layer.name for layer in report.layers] == model.default_layers()


def test_fused_layers_keep_their_epilogue():
    model = EDSR(blocks=1, features=8, residual_scale=0.1)
    ghost, _ = convert(model)
    assert ghost.body[0].conv1.activation == "relu"
    assert ghost.body[0].conv2.residual_scale == 0.1


def test_shifts_are_frozen_and_can_be_learned_again():
    ghost, _ = convert(_edsr(), method="filters")
    layer = ghost.body[0].conv1
    assert layer.logits is None
    shift = layer.shift.clone()
    layer.learn_shifts()
    assert torch.equal(layer.selected_shift(), shift)


def test_a_converted_network_saves_and_loads_with_its_report(tmp_path):
    ghost, report = convert(_edsr(), method="filters", affine=True)
    save_model(ghost, tmp_path / "ghost.safetensors")
    loaded = load_model(tmp_path / "ghost.safetensors")
    image = torch.rand(1, 3, 12, 12) * 255
    # A layer's first runs may take another path than its later ones.
    torch.testing.assert_close(loaded(image), ghost.eval()(image), rtol=0, atol=1e-3)
    expected = json.loads(json.dumps(report.to_json()))
    # Times would keep two equal conversions from being equal files.
    del expected["seconds"]
    assert loaded.metadata["report"] == expected


def test_an_unseen_network_converts_runs_trains_and_saves(unseen, tmp_path):
    images = torch.rand(3, 3, 20, 20)
    ghost, report = convert(unseen, 0.5, calibration=images)
    assert [layer.name for layer in report.layers] == ["wide", "grouped", "recursive", "fusion"]
    assert ghost.recursive is ghost.again
    assert ghost(images).shape == unseen(images).shape

    optimizer = torch.optim.SGD(ghost.parameters(), lr=1e-4)
    before = ghost.wide.weight.detach().clone()
    (ghost(images) - unseen(images)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(ghost.wide.weight, before)

    torch.save(ghost.state_dict(), tmp_path / "ghost.pt")
    other, _ = convert(unseen, 0.5)
    other.load_state_dict(torch.load(tmp_path / "ghost.pt", weights_only=True))
    assert torch.equal(other(images), ghost(images))


def test_layers_that_stay_dense_are_named_with_the_reason(unseen):
    _, report = convert(unseen, 0.5)
    reasons = _reasons(report)
    assert reasons["entry"] == "the first convolution"
    assert reasons["exit"] == "the last convolution"
    assert reasons["enlarging"] == "its output is enlarged"
    assert reasons["forgotten"] == "the network never calls it"
    assert reasons["single"] == "1 output channels are too few for ratio 0.5"


def test_a_predicate_overrides_the_choice(unseen):
    ghost, _ = convert(unseen, 0.5, layers=lambda name, _: name in ("entry", "enlarging"))
    assert list(ghost_layers(ghost)) == ["entry", "enlarging"]


def test_a_shared_layer_answers_to_each_of_its_names(unseen):
    ghost, report = convert(unseen, 0.5, layers=["again"])
    assert ghost.recursive is ghost.again
    assert report.layers[0].uses == 2


def test_layers_of_computed_or_shared_weights_stay_dense():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 8, 3, padding=1)
            self.first = nn.Conv2d(8, 8, 3, padding=1)
            self.second = nn.Conv2d(8, 8, 3, padding=1)
            self.second.weight = self.first.weight
            self.normed = parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
            self.plain = nn.Conv2d(8, 8, 3, padding=1)
            self.exit = nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, image):
            features = self.second(self.first(self.entry(image)))
            return self.exit(self.plain(self.normed(features)))

    ghost, report = convert(Tied())
    assert list(ghost_layers(ghost)) == ["plain"]
    reasons = _reasons(report)
    assert reasons["first"] == "shares its weight with second"
    assert reasons["normed"] == "its weight is computed by a parametrization"


def test_a_subclass_that_may_compute_something_else_stays_dense():
    class Doubling(nn.Conv2d):
        def forward(self, input):
            return 2 * super().forward(input)

    middle = Doubling(8, 8, 3, padding=1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), middle, FusedConv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3)
    )
    ghost, report = convert(model)
    assert ghost[1].__class__ is Doubling
    assert "Doubling" in _reasons(report)["1"]


def test_training_mode_and_frozen_parameters_are_kept():
    model = _edsr().train()
    model.body[0].conv1.requires_grad_(False)
    ghost, _ = convert(model)
    assert all(module.training for module in ghost.modules())
    assert not ghost.body[0].conv1.weight.requires_grad
    assert ghost.body[1].conv1.weight.requires_grad


def test_costs_are_those_of_the_network(unseen):
    ghost, report = convert(unseen, 0.5)
    assert report.parameters_before == sum(p.numel() for p in unseen.parameters())
    assert report.parameters_after == sum(p.numel() for p in ghost.parameters())
    wide = report.layers[0]
    assert report.macs_for == "x2 to 1280 x 720"
    assert wide.macs_before == 640 * 360 * 16 * 16 * 25
    assert wide.macs_after * 2 == wide.macs_before


def test_multiply_adds_of_ours_are_counted_for_a_1280_x_720_picture():
    model = CARN(scale=[2, 3, 4], features=8, groups=2, recursive=True)
    ghost, report = convert(model)
    assert report.macs_before == cost(model).macs
    assert report.macs_after == cost(ghost).macs


def test_ratio_zero_changes_nothing_and_says_so():
    ghost, report = convert(_edsr(), 0.0)
    assert not ghost_layers(ghost)
    assert len(report.skipped) == 4


def test_an_already_converted_layer_stays_as_it_is():
    ghost, _ = convert(_edsr(), layers=["body.0.conv1"])
    again, report = convert(ghost)
    assert len(ghost_layers(again)) == 4
    assert _reasons(report)["body.0.conv1"] == "is a ghost layer already"


def test_progress_hears_of_every_layer():
    heard = []
    convert(_edsr(), progress=lambda *news: heard.append(news))
    assert heard == [(i + 1, 4, f"body.{i // 2}.conv{i % 2 + 1}") for i in range(4)]


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_a_ratio_outside_its_domain_is_refused(ratio):
    with pytest.raises(InputError, match="ghost_ratio: found"):
        convert(_edsr(), ratio)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method: found 'magic'; allowed are kmeans"),
        ({"max_shift": 8}, "max_shift: found 8; 0 to 7"),
        ({"shift_scope": "pixel"}, "shift_scope: found 'pixel'"),
        ({"layers": ["body.0.conv3"]}, r"no convolution 'body.0.conv3'; did you mean 'body"),
        ({"layers": "body.0.conv1"}, "layers: found the text"),
        ({"layers": []}, "no layer can be converted"),
        ({"method": "calibrated"}, "needs pictures"),
        ({"method": "kmeans", "affine": True}, "has no gains"),
        ({"calibration": torch.zeros(3, 8, 8)}, r"calibration: found shape \[3, 8, 8\]"),
        ({"calibration": torch.full((1, 3, 8, 8), float("nan"))}, "calibration: .* NaN"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        convert(_edsr(), **arguments)


def test_weights_that_are_not_finite_are_refused_by_name():
    model = _edsr()
    with torch.no_grad():
        model.body[1].conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"body\.1\.conv2\.weight has entries that are NaN"):
        convert(model)


def test_a_network_whose_layers_are_all_too_narrow_is_refused():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    with pytest.raises(InputError, match=r"3 output channels are too few for ratio 0\.25"):
        convert(model, 0.25)


def test_a_network_without_convolutions_is_refused():
    with pytest.raises(InputError, match="no convolution"):
        convert(nn.Linear(3, 3))


def test_a_network_that_decides_by_its_input_is_refused():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 8, 3)
            self.bright = nn.Conv2d(8, 8, 3)
            self.dark = nn.Conv2d(8, 8, 3)

        def forward(self, image):
            branch = self.bright if image.mean() > 0 else self.dark
            return branch(self.entry(image))

    with pytest.raises(InputError, match="depends on its input"):
        convert(Fickle())


def test_a_network_that_needs_another_input_says_which_one_failed():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 8, 8, 1) for i in range(3)))

        def forward(self, image):
            return self.convs(image.view(1, 3, 10, 10))

    with pytest.raises(InputError, match=r"shape \[1, 3, 24, 24\].*example"):
        convert(Fixed())
    ghost, _ = convert(Fixed(), example=torch.rand(1, 3, 10, 10))
    assert isinstance(ghost.convs[1], GhostConv2d)


def test_dead_channels_are_named():
    model = _edsr()
    with torch.no_grad():
        model.body[0].conv1.weight[[2, 5]] = 0
    _, report = convert(model)
    assert report.layers[0].dead == [2, 5]
