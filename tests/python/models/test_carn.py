import pytest
import torch
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import CARN
from published_networks import DIV2K_MEAN, CarnPytorch


def twin_and_model(scales: tuple[int, ...], **options: object) -> tuple[CarnPytorch, CARN]:
    twin = CarnPytorch(scales, features=8, **options)
    model = CARN(scale=scales, features=8, mean=DIV2K_MEAN, **options)
    recursive = bool(options.get("recursive"))
    convs = {"conv1": 0, "conv2": 2, **({"pointwise": 4} if "groups" in options else {})}
    names = {"entry": "entry", "exit": "exit"}
    for b in range(3):
        names[f"cascade.fusions.{b}"] = f"c{b + 1}.body.0"
        for u in range(3):
            names[f"cascade.units.{b}.fusions.{u}"] = f"b{b + 1}.c{u + 1}.body.0"
        for u in range(1 if recursive else 3):
            for name, i in convs.items():
                names[f"cascade.units.{b}.units.{u}.{name}"] = f"b{b + 1}.b{u + 1}.body.{i}"
    for scale in scales:
        for i in range(2 if scale == 4 else 1):
            names[f"upsamplers.x{scale}.convs.{i}"] = f"upsample.up{scale}.body.{3 * i}"
    for name, twin_name in names.items():
        model.get_submodule(name).load_state_dict(twin.get_submodule(twin_name).state_dict())
    return twin.double(), model.double().eval()


@pytest.mark.parametrize("options", [{}, {"groups": 4, "recursive": True}])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_computes_the_published_network_at_each_scale(options: dict, scale: int) -> None:
    twin, model = twin_and_model((2, 3, 4), **options)
    image = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    output = model(image, scale)
    assert output.shape == (2, 3, 5 * scale, 6 * scale)
    torch.testing.assert_close(output, twin(image, scale), rtol=1e-10, atol=1e-10)


def test_mobile_network_uses_one_residual_block_three_times() -> None:
    recursive = CARN(features=8, groups=4, recursive=True)
    plain = CARN(features=8, groups=4, recursive=False)
    assert len(recursive.default_layers()) * 3 == len(plain.default_layers())


def test_one_scale_makes_one_head() -> None:
    model = CARN(scale=3, features=8)
    assert model.scales == (3,)
    assert list(model.upsamplers) == ["x3"]
    assert model.config["scale"] == 3


def test_refuses_a_scale_that_it_has_no_head_for() -> None:
    model = CARN(scale=(2, 3), features=8)
    with pytest.raises(InputError, match="scale: found 4; this network serves x2, x3"):
        model(torch.rand(1, 3, 4, 4), 4)


@pytest.mark.parametrize(
    ("groups", "expected"), [(1, {"conv1", "conv2"}), (4, {"conv1", "conv2", "pointwise"})]
)
def test_converts_the_convolutions_of_its_residual_blocks(groups: int, expected: set[str]) -> None:
    model = CARN(features=8, groups=groups)
    names = model.default_layers()
    assert {name.rpartition(".")[2] for name in names} == expected
    assert len(names) == 9 * len(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "groups: got 3, which does not divide features = 8"),
        ({"groups": 0}, "groups: got 0"),
        ({"scale": (2, 7)}, "scale: got 7"),
        ({"scale": ()}, "scale: got"),
        ({"mean": "imagenet"}, "mean: got 'imagenet'"),
    ],
)
def test_refuses_hyperparameters_out_of_their_domain(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CARN(**{"features": 8, **arguments})
