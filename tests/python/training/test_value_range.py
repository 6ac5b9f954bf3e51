import pytest
import torch
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import create_model, model_from_config
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.training import set_value_range
from ghostsr_ext.training.network import exported
from ghostsr_ext.training.value_range import OriginalRange, natural_carrier, to_unit_range

NETWORKS = {
    "edsr": ("edsr_baseline", {"blocks": 1, "features": 4, "value_range": 255.0}),
    "edsr, direct": (
        "edsr_baseline",
        {"blocks": 1, "features": 4, "value_range": 255.0, "mean": None, "tail": "direct"},
    ),
    "rdn, nearest": (
        "rdn",
        {
            "blocks": 1,
            "layers": 1,
            "growth": 4,
            "features": 4,
            "value_range": 255.0,
            "tail": "nearest",
        },
    ),
    "vdsr": ("vdsr", {"layers": 3, "features": 4, "value_range": 255.0}),
}


HOMOGENEOUS = {
    **NETWORKS,
    "carn": ("carn", {"scale": [2, 3], "features": 4, "value_range": 255.0}),
}


def randomised(name):
    """A network whose biases are of the size of its features."""
    preset, arguments = HOMOGENEOUS[name]
    model = create_model(preset, **arguments).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3 * model.value_range)
    return model


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_features_can_carry_the_factor(name):
    model = randomised(name)
    other = 256.0 - model.value_range
    image = torch.rand(1, model.channels, 8, 8)
    weights = {key: value.clone() for key, value in model.state_dict().items() if "weight" in key}
    for scale in model.scales:
        with torch.no_grad():
            set_value_range(model, 256.0 - other, "features")
            expected = model(image * model.value_range, scale) / model.value_range
            set_value_range(model, other, "features")
            found = model(image * model.value_range, scale) / model.value_range

        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for key, value in weights.items():
        assert torch.equal(model.state_dict()[key], value)


@pytest.mark.parametrize(("folded", "carrier"), [(True, "ends"), (False, "features")])
def test_the_factor_goes_where_layers_become_of_one_size(folded, carrier):
    model = create_model("edsr_baseline", blocks=1, features=4, value_range=1.0).eval()
    set_value_range(model, 255.0, "ends" if folded else "features")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    assert to_unit_range(model) == OriginalRange(255.0, carrier)
    assert 0.1 < model.head.weight.std() / model.tail.weight.std() < 10
    exported(model, OriginalRange(255.0, carrier))
    set_value_range(model, 255.0, carrier)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=0)


def test_a_network_with_a_sigmoid_keeps_its_features():
    model = create_model("edsr_baseline", blocks=1, features=4, value_range=255.0).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.body_end = torch.nn.Sequential(model.body_end, torch.nn.Sigmoid())
    model.body_end.forward = lambda features, _: torch.sigmoid(features)

    assert natural_carrier(model) == "ends"
    for name, tensor in before.items():
        key = name.replace("body_end.", "body_end.0.")
        assert torch.equal(model.state_dict()[key], tensor)


@pytest.mark.parametrize(
    ("name", "carrier"),
    [
        ("edsr_r8f64_x2", "ends"),
        ("edsr_mobile_f64b5_x2", "features"),
        ("edsr_mobile_f32b5_x2", "features"),
    ],
)
def test_published_networks_say_which_they_are(name, carrier, data_dir):
    model = load_model(data_dir / "weights" / f"{name}.pth")
    assert natural_carrier(model) == carrier


@pytest.mark.parametrize("name", NETWORKS)
def test_the_picture_stays_the_same_in_the_new_range(name):
    preset, arguments = NETWORKS[name]
    model = create_model(preset, **arguments).eval()
    image = torch.rand(1, model.channels, 8, 8)
    with torch.no_grad():
        expected = model(255 * image) / 255
        found = set_value_range(model, 1.0)(image)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert model.value_range == model.config["value_range"] == 1.0


def test_there_and_back_gives_the_same_network():
    model = create_model("edsr_baseline", blocks=1, features=4, value_range=255.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = dict(model.config)

    set_value_range(set_value_range(model, 1.0), 255.0)

    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-6, atol=0)
    assert model.config == config


def test_the_new_description_rebuilds_the_network():
    model = set_value_range(create_model("edsr_baseline", blocks=1, features=4), 1.0)

    twin = model_from_config(model.config)
    twin.load_state_dict(model.state_dict())

    assert twin.value_range == 1.0


def test_a_ghost_layer_at_the_end_is_scaled_with_its_own_bias():
    model = create_model("vdsr", layers=3, features=4, color="rgb", value_range=255.0).eval()
    model.convs[-1] = GhostConv2d(4, 3, 3, padding=1, affine=True)
    torch.nn.init.normal_(model.convs[-1].ghost_bias)
    model.eval()
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = model(255 * image) / 255
        found = set_value_range(model, 1.0)(image)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_another_range_than_one_and_255_is_refused_and_nothing_changes():
    model = create_model("vdsr", layers=3, features=4)
    before = model.convs[0].weight.clone()

    with pytest.raises(InputError, match="value_range"):
        set_value_range(model, 2.0)

    assert torch.equal(model.convs[0].weight, before)


def test_published_weights_with_a_folded_range_become_of_one_size(data_dir):
    model = load_model(data_dir / "weights" / "edsr_r8f64_x2.pth")

    def sizes():
        return [
            layer.weight.detach().std().item()
            for layer in (model.head, model.body[0].conv1, model.tail)
        ]

    head, body, tail = sizes()
    assert tail / head > 100
    set_value_range(model, 1.0)
    head, body, tail = sizes()
    assert max(head, body, tail) / min(head, body, tail) < 20
