import copy
import json
import math

import pytest
import torch
from ghost_in_place import put_ghost_layer
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import CARN, EDSR, RDN, VDSR, SRModel, model_from_config


def small_models() -> dict[str, SRModel]:
    return {
        "edsr x2": EDSR(scale=2, blocks=2, features=4),
        "edsr x3 direct": EDSR(scale=3, blocks=1, features=4, tail="direct"),
        "edsr x4": EDSR(scale=4, blocks=1, features=4),
        "rdn x2": RDN(scale=2, blocks=2, layers=2, growth=4, features=4),
        "rdn x3 nearest": RDN(scale=3, blocks=1, layers=2, growth=4, features=4, tail="nearest"),
        "carn x4": CARN(scale=4, features=4),
        "carn-m x2 x3": CARN(scale=(2, 3), features=4, groups=2, recursive=True),
        "vdsr": VDSR(layers=5, features=4),
    }


NAMES = list(small_models())


def make_ghosts_that_shift_sideways(model: SRModel, max_shift: int) -> None:
    for name in model.default_layers():
        ghost = put_ghost_layer(model, name, max_shift=max_shift)
        sideways = torch.tensor([0, max_shift]).expand(ghost.ghost_channels, 2)
        ghost.set_tables(ghost.source, sideways).freeze_shifts()


def measured_radius(model: SRModel, scale: int) -> int:
    """Find by gradients how far to the side the output pixels of one input pixel look."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Positive throughout, so that no ReLU closes and nothing cancels.
            parameter.copy_(parameter.abs() + 0.01)
    centre = model.receptive_field + 2
    image = torch.rand(1, model.channels, 3, 2 * centre + 1, dtype=torch.float64)
    if model.mean is not None:
        image = image + model.mean
    image.requires_grad_()
    enlarged = 1 if model.input_upscaled else scale
    pixels = slice(centre * enlarged, (centre + 1) * enlarged)
    model(image, scale)[..., pixels].sum().backward()
    assert image.grad is not None
    reached = image.grad.abs().sum(dim=(0, 1, 2)).nonzero()
    return int((reached - centre).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_receptive_field_is_how_far_a_dense_network_looks(name: str) -> None:
    model = small_models()[name]
    assert model.receptive_field == max(measured_radius(model, scale) for scale in model.scales)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_shift", [1, 3])
def test_receptive_field_includes_the_shifts_of_ghost_layers(name: str, max_shift: int) -> None:
    model = small_models()[name]
    make_ghosts_that_shift_sideways(model, max_shift)
    assert model.receptive_field == max(measured_radius(model, scale) for scale in model.scales)


def test_receptive_field_of_the_full_edsr_is_half_its_kernels() -> None:
    with torch.device("meta"):
        model = EDSR(scale=4)
    assert model.receptive_field == math.ceil(1 + 64 + 1 + 1 + 1 / 2 + 1 / 4)


def test_receptive_field_leaves_the_network_as_it_is() -> None:
    model = EDSR(blocks=1, features=4)
    make_ghosts_that_shift_sideways(model, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    _ = model.train().receptive_field
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_config_rebuilds_the_network_through_json(name: str) -> None:
    model = small_models()[name]
    twin = model_from_config(json.loads(json.dumps(model.config)))
    assert type(twin) is type(model)
    assert twin.config == model.config
    assert twin.scales == model.scales
    twin.load_state_dict(model.state_dict())
    image = torch.rand(1, model.channels, 5, 4) * model.value_range
    assert torch.equal(twin.eval()(image), model.eval()(image))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (3, 2)])
def test_output_has_the_size_of_the_input_times_the_scale(
    name: str, height: int, width: int
) -> None:
    model = small_models()[name].eval()
    for scale in model.scales:
        enlarged = 1 if model.input_upscaled else scale
        output = model(torch.rand(2, model.channels, height, width), scale)
        assert output.shape == (2, model.channels, height * enlarged, width * enlarged)


def test_empty_batch_gives_an_empty_batch() -> None:
    model = EDSR(blocks=1, features=4).eval()
    assert model(torch.rand(0, 3, 4, 5)).shape == (0, 3, 8, 10)


def test_mean_color_of_a_network_that_adds_nothing_returns() -> None:
    model = EDSR(blocks=1, features=4, mean=[10.0, 20.0, 30.0])
    with torch.no_grad():
        model.tail.weight.zero_()
        model.tail.bias.zero_()
    output = model(255 * torch.rand(1, 3, 4, 4))
    expected = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 4, 4), (1, 4, 4, 4)])
def test_refuses_input_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"image: got shape .* allowed is \[N, 3, h, w\]"):
        EDSR(blocks=1, features=4)(torch.rand(shape))


def test_a_network_leaves_the_layers_to_the_converter_unless_it_says_otherwise() -> None:
    class Plain(SRModel):
        architecture = "plain"

    model = Plain(config={}, scales=(2,), value_range=1.0)
    assert model.default_layers() is None
