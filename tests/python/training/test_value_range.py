import pytest
import torch
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import create_model, model_from_config
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.training import set_value_range

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
    model = create_model("vdsr", layers=3, features=4, colour="rgb", value_range=255.0).eval()
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
