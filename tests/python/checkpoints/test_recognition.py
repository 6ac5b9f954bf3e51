from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.errors import InputError
from published_networks import (
    DIV2K_MEAN,
    BasicsrEdsr,
    CarnPytorch,
    EdsrPytorch,
    EdsrPytorchRdn,
    IdealoRdn,
    NumberedVdsr,
    TwtygqyyVdsr,
    Yjn870Rdn,
)
from safetensors.torch import save_file
from torch import Tensor, nn

MEAN_255 = tuple(255 * value for value in DIV2K_MEAN)


def saved(content: Any, folder: Path) -> Path:
    path = folder / "published.pth"
    torch.save(content, path)
    return path


def assert_same_pictures(path: Path, twin: nn.Module, scales: tuple[int, ...] = ()) -> None:
    model = load_model(path)
    image = torch.rand(1, model.channels, 6, 5) * model.value_range
    for scale in scales or (model.scale,):
        expected = twin(image, scale) if scales else twin(image)
        torch.testing.assert_close(model(image, scale), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("mean", "value_range"), [(MEAN_255, 255.0), (DIV2K_MEAN, 1.0), (None, 255.0)]
)
def test_edsr_pytorch(
    scale: int, mean: tuple[float, ...] | None, value_range: float, tmp_path: Path
) -> None:
    twin = EdsrPytorch(scale, features=8, blocks=3, mean=mean)
    path = saved(twin.state_dict(), tmp_path)
    model = load_model(path)
    assert model.config["architecture"] == "edsr"
    assert (model.scale, model.config["blocks"], model.config["features"]) == (scale, 3, 8)
    assert model.value_range == value_range
    assert_same_pictures(path, twin)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_whose_tail_is_one_convolution(scale: int, tmp_path: Path) -> None:
    twin = EdsrPytorch(scale, direct=True)
    path = saved(twin.state_dict(), tmp_path)
    assert load_model(path).config["tail"] == "direct"
    assert load_model(path).scale == scale
    assert_same_pictures(path, twin)


@pytest.mark.parametrize(("features", "expected"), [(8, 1.0), (256, 0.1)])
def test_residual_scale_is_that_of_the_paper_for_the_width(
    features: int, expected: float, tmp_path: Path
) -> None:
    path = saved(EdsrPytorch(2, features=features, blocks=1).state_dict(), tmp_path)
    assert load_model(path).config["residual_scale"] == expected


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("wrapper", ["params", "params_ema", None])
def test_basicsr_edsr(scale: int, wrapper: str | None, tmp_path: Path) -> None:
    twin = BasicsrEdsr(scale)
    state = twin.state_dict()
    path = saved(state if wrapper is None else {wrapper: state}, tmp_path)
    model = load_model(path)
    assert (model.scale, model.value_range) == (scale, 255.0)
    image = torch.rand(1, 3, 6, 5)
    torch.testing.assert_close(model(255 * image) / 255, twin(image), rtol=1e-4, atol=1e-4)


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    averaged, plain = BasicsrEdsr(2), BasicsrEdsr(2)
    content = {"params": plain.state_dict(), "params_ema": averaged.state_dict()}
    path = saved(content, tmp_path)
    assert torch.equal(load_model(path).head.weight, averaged.conv_first.weight)
    assert "state dict found under 'params_ema'" in load_model(path).origin["evidence"]


@pytest.mark.parametrize("options", [{}, {"groups": 4, "recursive": True}, {"groups": 2}])
@pytest.mark.parametrize("scales", [(2,), (2, 3, 4)])
def test_carn(options: dict, scales: tuple[int, ...], tmp_path: Path) -> None:
    twin = CarnPytorch(scales, **options)
    path = saved(twin.state_dict(), tmp_path)
    model = load_model(path)
    assert model.scales == scales
    assert model.value_range == 1.0
    assert model.config["groups"] == options.get("groups", 1)
    assert model.config["recursive"] == options.get("recursive", False)
    assert_same_pictures(path, twin, scales)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_carn_of_one_scale(scale: int, tmp_path: Path) -> None:
    twin = CarnPytorch((scale,), head_names=("up",))
    path = saved(twin.state_dict(), tmp_path)
    assert load_model(path).scales == (scale,)
    assert_same_pictures(path, twin, (scale,))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("network", "config"),
    [
        (Yjn870Rdn, {"growth": 6, "tail": "pixel_shuffle", "value_range": 1.0}),
        (IdealoRdn, {"growth": 4, "tail": "nearest", "value_range": 1.0}),
        (EdsrPytorchRdn, {"growth": 4, "tail": "pixel_shuffle", "value_range": 255.0}),
    ],
)
def test_rdn(network: type[nn.Module], config: dict[str, Any], scale: int, tmp_path: Path) -> None:
    twin = network(scale, blocks=2, layers=3, growth=config["growth"])
    path = saved(twin.state_dict(), tmp_path)
    config = {"scale": scale, "blocks": 2, "layers": 3, "features": 6, **config}
    assert load_model(path).config.items() >= config.items()
    assert_same_pictures(path, twin)


def test_twtygqyy_vdsr(tmp_path: Path) -> None:
    twin = TwtygqyyVdsr(middle=3)
    path = saved(twin.state_dict(), tmp_path)
    model = load_model(path)
    assert (model.config["layers"], model.config["bias"], model.color) == (5, False, "y")
    assert_same_pictures(path, twin)


@pytest.mark.parametrize(("channels", "color"), [(1, "y"), (3, "rgb")])
def test_numbered_vdsr(channels: int, color: str, tmp_path: Path) -> None:
    twin = NumberedVdsr(layers=6, channels=channels)
    path = saved(twin.state_dict(), tmp_path)
    model = load_model(path)
    assert (model.config["layers"], model.config["bias"], model.color) == (6, True, color)
    assert_same_pictures(path, twin)


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_prefixes_of_wrappers_are_removed(prefix: str, tmp_path: Path) -> None:
    twin = EdsrPytorch(2)
    state = {prefix + key: value for key, value in twin.state_dict().items()}
    assert_same_pictures(saved({"state_dict": state, "epoch": 7}, tmp_path), twin)


def test_legacy_torch_files_are_read(tmp_path: Path) -> None:
    twin = EdsrPytorch(2)
    path = tmp_path / "legacy.pth"
    torch.save(twin.state_dict(), path, _use_new_zipfile_serialization=False)
    assert_same_pictures(path, twin)


def test_a_torch_file_is_told_by_its_content(tmp_path: Path) -> None:
    twin = EdsrPytorch(2)
    path = tmp_path / "misnamed.safetensors"
    torch.save(twin.state_dict(), path)
    assert_same_pictures(path, twin)


def test_published_keys_in_safetensors_are_read(tmp_path: Path) -> None:
    twin = CarnPytorch((2,))
    path = tmp_path / "published.safetensors"
    save_file({key: value.half() for key, value in twin.state_dict().items()}, path)
    assert_same_pictures(path, twin.half().float(), (2,))


class Identity(EdsrPytorch):
    """An EDSR that repeats the pixels of its input if it is run as it was trained."""

    def __init__(self) -> None:
        super().__init__(2, features=3, blocks=1, direct=True)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for layer in (self.head[0], self.body[0].body[0], self.body[0].body[2]):
                self.pass_through(layer)
            for channel in range(3):
                self.tail[0].weight[4 * channel : 4 * channel + 4, channel, 1, 1] = 1

    @staticmethod
    def pass_through(layer: nn.Conv2d, factor: float = 1.0) -> None:
        for channel in range(3):
            layer.weight[channel, channel, 1, 1] = factor

    @torch.no_grad()
    def with_residual(self, factor: float, bias: float) -> "Identity":
        """Make the residual ReLU(factor * x + bias)."""
        self.pass_through(self.body[0].body[0], factor)
        self.body[0].body[0].bias.fill_(bias)
        # The convolution after the blocks passes their sum less the head, which is the residual.
        self.pass_through(self.body[1], 0.5)
        self.pass_through(self.head[0], 1.0)
        with torch.no_grad():
            self.tail[0].weight.mul_(1 / 1.5)
        return self


@pytest.mark.parametrize(
    ("factor", "bias", "value_range"),
    [
        # The residual is silent in 0..255 but for the darkest pixels; in 0..1 it is always there.
        (-5.0, 50.0, 255.0),
        # The residual is silent in 0..1; in 0..255 it is nearly always there.
        (5.0, -10.0, 1.0),
    ],
)
def test_value_range_without_mean_is_the_one_that_keeps_a_picture(
    factor: float, bias: float, value_range: float, tmp_path: Path
) -> None:
    twin = Identity().with_residual(factor, bias)
    model = load_model(saved(twin.state_dict(), tmp_path))
    assert model.value_range == value_range
    assert any("value range" in sentence for sentence in model.origin["evidence"])


@pytest.mark.parametrize("residual_scale", [1.0, 0.1])
def test_residual_scale_is_the_one_that_keeps_a_picture(
    residual_scale: float, tmp_path: Path
) -> None:
    twin = Identity()
    with torch.no_grad():
        twin.pass_through(twin.body[0].body[2], 1 / residual_scale)
        twin.pass_through(twin.body[1], 0.5)
        # Head and residual are x each, half of their sum is added to the head: twice x.
        twin.tail[0].weight.mul_(0.5)
    model = load_model(saved(twin.state_dict(), tmp_path))
    assert model.config["residual_scale"] == residual_scale


def test_overrides_replace_what_is_found(tmp_path: Path) -> None:
    path = saved(EdsrPytorch(2).state_dict(), tmp_path)
    overrides = {"value_range": 1.0, "residual_scale": 0.2, "mean": [0.5, 0.5, 0.5]}
    model = load_model(path, overrides=overrides)
    assert {key: model.config[key] for key in overrides} == overrides
    assert model.mean is not None
    assert model.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_origin_names_layout_and_evidence(tmp_path: Path) -> None:
    path = saved(CarnPytorch((2, 4)).state_dict(), tmp_path)
    origin = load_model(path).origin
    assert origin["read_as"] == "CARN-pytorch's CARN"
    assert origin["file"] == str(path)
    assert "value range 0..1: add_mean.shifter.bias is up to 0.4488" in origin["evidence"]


def edsr(change: Callable[[dict[str, Tensor]], Any], mean: bool = True) -> dict[str, Tensor]:
    state = EdsrPytorch(2, mean=MEAN_255 if mean else None).state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"features.0.weight": torch.zeros(4, 3, 3, 3)},
            r"fit no known network; keys begin features\.0\.weight.*Known are EDSR-PyTorch's EDSR",
        ),
        (
            {"entry.weight": torch.zeros(4, 3, 3, 3), "exit.weight": torch.zeros(3, 4, 3, 3)},
            r"nearest is CARN-pytorch's CARN: has entry\.weight, exit\.weight, lacks b1\.b1\.body",
        ),
        (
            {**EdsrPytorch(2).state_dict(), **NumberedVdsr().state_dict()},
            r"is ambiguous: head\.0\.weight, .* say EDSR-PyTorch's EDSR; conv1\.weight, .* say "
            "huangzehao's VDSR",
        ),
        (
            edsr(lambda s: s.update({"body.1.body.3.weight": torch.zeros(1)})),
            r"keys that do not belong there: body\.1\.body\.3\.weight",
        ),
        (edsr(lambda s: s.pop("body.0.body.2.bias")), r"lacks body\.0\.body\.2\.bias"),
        (edsr(lambda s: s.pop("sub_mean.bias")), "sub_mean and add_mean must be 1x1"),
        (edsr(lambda s: s.pop("add_mean.weight")), "sub_mean and add_mean must be 1x1"),
        (
            edsr(lambda s: s.update({"sub_mean.weight": 2 * s["sub_mean.weight"]})),
            "only shift colors",
        ),
        (
            edsr(lambda s: s.update({"add_mean.bias": s["sub_mean.bias"]})),
            r"sub_mean\.bias is not the negative of add_mean\.bias",
        ),
        (
            edsr(lambda s: s.update({"head.0.weight": torch.zeros(8, 1, 3, 3)})),
            r"tensor head\.0\.weight has shape \[8, 1, 3, 3\]; \[8, 3, 3, 3\] is needed",
        ),
        (
            edsr(lambda s: s.update({"head.0.weight": torch.zeros(8)})),
            r"tensor head\.0\.weight has shape \[8\]; the four dimensions",
        ),
        (
            edsr(lambda s: s.update({"tail.0.0.weight": torch.zeros(40, 8, 3, 3)})),
            r"output channels 40 in tail\.0\.0\.weight fit no scale",
        ),
        (
            edsr(lambda s: s.update({"body.0.body.0.bias": torch.zeros(8, dtype=torch.int64)})),
            r"body\.0\.body\.0\.bias has type torch\.int64; torch\.float32 is needed",
        ),
        (
            CarnPytorch((3,), head_names=("up2",)).state_dict(),
            r"a head upsample\.up2 that enlarges by 3",
        ),
        (
            {k: v for k, v in CarnPytorch((2,)).state_dict().items() if "upsample" not in k},
            r"no head upsample\.up2, up3, up4 or up",
        ),
        (NumberedVdsr(channels=2).state_dict(), "2 input channels in conv1.weight"),
    ],
    ids=range(16),
)
def test_what_is_unknown_or_wrong_is_named(
    state: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    path = saved(state, tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value)
