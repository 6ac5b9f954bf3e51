import json

import pytest
import torch
from ghost_in_place import put_ghost_layer
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import EDSR, SRModel, create_model
from ghostsr_ext.profiling import Cost, cost, describe
from torch import nn


def meta_model(preset: str, **overrides: object) -> SRModel:
    with torch.device("meta"):
        return create_model(preset, **overrides)


def convert(model: SRModel, names: list[str], **options: object) -> SRModel:
    for name in names:
        put_ghost_layer(model, name, **options)
    return model


@pytest.mark.parametrize(
    ("preset", "scale", "parameters", "macs"),
    [
        ("edsr", 2, 40.73e6, 9384.7e9),
        ("edsr", 3, 43.68e6, 4476.5e9),
        ("edsr", 4, 43.1e6, 2894.5e9),
        ("rdn", 2, 22.12e6, 5096.2e9),
        ("rdn", 3, 22.31e6, 2284.7e9),
        ("rdn", 4, 22.27e6, 1309.2e9),
        ("vdsr", 2, 665e3, 612.6e9),
    ],
)
def test_cost_of_the_papers_networks(
    preset: str, scale: int, parameters: float, macs: float
) -> None:
    counted = cost(meta_model(preset, scale=scale))
    assert counted.parameters == pytest.approx(parameters, rel=0.005)
    assert counted.macs == pytest.approx(macs, rel=0.0005)


@pytest.mark.parametrize(
    ("scale", "carn", "carn_m"), [(2, 222.8e9, 91.2e9), (3, 118.8e9, 46.1e9), (4, 90.9e9, 32.5e9)]
)
def test_cost_of_carn_at_each_scale(scale: int, carn: float, carn_m: float) -> None:
    assert cost(meta_model("carn"), scale=scale).macs == pytest.approx(carn, rel=0.0005)
    assert cost(meta_model("carn_m"), scale=scale).macs == pytest.approx(carn_m, rel=0.001)


def test_parameters_of_carn_count_biases_and_those_of_carn_m_do_not() -> None:
    assert cost(meta_model("carn")).parameters == pytest.approx(1592e3, rel=0.0005)
    assert cost(meta_model("carn_m")).weights == pytest.approx(412e3, rel=0.0005)
    assert cost(meta_model("carn_m")).parameters == 414_787


@pytest.mark.parametrize(
    ("preset", "scale", "more", "parameters", "macs"),
    [
        ("edsr", 2, [], -46.4, -46.3),
        ("edsr", 3, [], -43.2, -43.2),
        ("edsr", 4, [], -43.8, -37.6),
        ("edsr", 2, ["body_end"], -47.1, -47.1),
        ("rdn", 2, [], -48.0, -48.0),
        ("carn", 2, [], -34.5, -34.3),
        ("carn", 3, [], -28.9, -28.6),
        ("carn", 4, [], -29.9, -21.0),
    ],
)
def test_saving_of_ghost_networks_at_ratio_one_half(
    preset: str, scale: int, more: list[str], parameters: float, macs: float
) -> None:
    model = meta_model(preset, scale=scale)
    dense = cost(model)
    ghost = cost(convert(model, model.default_layers() + more))
    assert 100 * (ghost.parameters / dense.parameters - 1) == pytest.approx(parameters, abs=0.06)
    assert 100 * (ghost.macs / dense.macs - 1) == pytest.approx(macs, abs=0.06)


def test_a_convolution_costs_its_weight_times_its_output_positions() -> None:
    model = EDSR(scale=2, blocks=1, features=8)
    head = cost(model, (20, 12)).layers[0]
    assert head.name == "head"
    assert head.parameters == 3 * 8 * 9 + 8
    assert head.biases == 8
    assert head.macs == 3 * 8 * 9 * (10 * 6)


def test_grouped_convolutions_and_repeated_calls_are_counted() -> None:
    model = create_model("carn_m", scale=2, features=8, groups=4)
    layers = {layer.name: layer for layer in cost(model, (4, 4)).layers}
    conv1 = layers["cascade.units.0.units.0.conv1"]
    assert (conv1.calls, conv1.groups) == (3, 4)
    assert conv1.macs == 3 * (8 * 2 * 9) * 4
    assert conv1.parameters == 8 * 2 * 9 + 8


def test_unused_heads_have_parameters_and_no_multiply_adds() -> None:
    layers = {layer.name: layer for layer in cost(meta_model("carn"), scale=2).layers}
    unused = layers["upsamplers.x3.convs.0"]
    assert (unused.calls, unused.macs) == (0, 0)
    assert unused.parameters == 64 * 576 * 9 + 576


def test_an_uneven_picture_costs_its_exact_area() -> None:
    model = EDSR(scale=3, blocks=1, features=8)
    even, uneven = cost(model, (9, 9)), cost(model, (9, 10))
    assert uneven.macs == round(even.macs * 10 / 9)


def test_shift_logits_and_tables_cost_nothing() -> None:
    model = convert(EDSR(scale=2, blocks=1, features=8), ["body.0.conv1"], affine=True)
    learned = cost(model, (8, 8))
    model.get_submodule("body.0.conv1").freeze_shifts()
    assert cost(model, (8, 8)) == learned
    layer = next(layer for layer in learned.layers if layer.kind == "ghost")
    assert (layer.out_channels, layer.intrinsic_channels) == (8, 4)
    assert layer.parameters == 4 * 8 * 9 + 4 + 2 * 4
    assert layer.macs == 4 * 8 * 9 * 16


def test_totals_are_sums_over_layers() -> None:
    counted = cost(meta_model("carn_m"), scale=3)
    assert counted.parameters == sum(layer.parameters for layer in counted.layers)
    assert counted.weights == counted.parameters - sum(layer.biases for layer in counted.layers)
    assert counted.macs == pytest.approx(sum(layer.macs for layer in counted.layers), abs=50)


def test_any_network_can_be_counted() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.activation = nn.PReLU(4)
            self.up = nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(self.activation(self.conv(x)))

    counted = cost(Mine(), (8, 12), scale=2)
    assert counted.macs == 3 * 4 * 9 * 24 + 4 * 3 * 16 * 24
    assert counted.parameters == (3 * 4 * 9 + 4) + 4 + (4 * 3 * 16 + 3)
    assert "(other)" in counted.table()
    with pytest.raises(InputError, match="scale: is needed"):
        cost(Mine(), (8, 12))


@pytest.mark.parametrize("size", [(0, 10), (10,), (10.5, 10)])
def test_bad_sizes_are_refused(size: tuple) -> None:
    with pytest.raises(InputError, match="hr_size: got"):
        cost(EDSR(blocks=1, features=4), size)


def test_a_scale_that_the_network_does_not_serve_is_refused() -> None:
    with pytest.raises(InputError, match=r"scale: found 3; this network serves x2"):
        cost(EDSR(blocks=1, features=4), scale=3)


def test_table_has_a_row_for_each_layer_and_the_total() -> None:
    model = convert(EDSR(scale=2, blocks=1, features=8), ["body.0.conv1"])
    lines = cost(model).table().splitlines()
    assert len(lines) == 1 + 6 + 1
    assert lines[0].split()[0] == "layer"
    ghost = next(line for line in lines if line.startswith("body.0.conv1"))
    assert "8 -> 4 + 4" in ghost
    assert lines[-1].startswith("total, x2 to 1280x720")


def test_json_form_holds_everything() -> None:
    counted: Cost = cost(EDSR(scale=2, blocks=1, features=8))
    content = json.loads(json.dumps(counted.to_json()))
    assert content["macs"] == counted.macs
    assert content["hr_size"] == [720, 1280]
    assert content["layers"][0]["kernel"] == [3, 3]


def test_description_says_what_the_network_is() -> None:
    model = convert(EDSR(scale=2, blocks=1, features=8), ["body.0.conv1"])
    content = json.loads(json.dumps(describe(model)))
    assert content["architecture"] == "edsr"
    assert content["hyperparameters"]["features"] == 8
    assert content["scales"] == [2]
    assert (content["value_range"], content["color"]) == (255.0, "rgb")
    assert (content["ghost_layers"], content["convolutions"]) == (1, 6)
    assert content["receptive_field"] == 7
    assert content["cost"]["parameters"] == cost(model).parameters
