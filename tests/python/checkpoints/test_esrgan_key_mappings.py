"""The layouts of ESRGAN's and Real-ESRGAN's networks, told from their tensors alone."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, spandrel_files
from ghostsr_ext.errors import GhostsrError, InputError
from published_networks import Bsrgan, FirstEsrgan, RealEsrgan, RealEsrganCompact
from safetensors.torch import save_file
from torch import Tensor, nn

WRAPPERS = [None, "params", "params_ema"]


def _saved(content: object, folder: Path) -> Path:
    path = folder / "published.pth"
    torch.save(content, path)
    return path


def _wrapped(state: Mapping[str, Tensor], wrapper: str | None) -> object:
    return state if wrapper is None else {wrapper: state}


def _assert_same_pictures(path: Path, twin: nn.Module) -> None:
    model = load_model(path)
    image = torch.rand(1, 3, 8, 4)
    with torch.no_grad():
        torch.testing.assert_close(model(image), twin(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_real_esrgan(scale: int, wrapper: str | None, tmp_path: Path) -> None:
    twin = RealEsrgan(scale, features=8, growth=4, blocks=3)
    path = _saved(_wrapped(twin.state_dict(), wrapper), tmp_path)

    assert load_model(path).config == {
        "architecture": "rrdbnet",
        "scale": scale,
        "blocks": 3,
        "features": 8,
        "growth": 4,
        "unshuffle": 4 // scale,
    }
    _assert_same_pictures(path, twin)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("network", [Bsrgan, FirstEsrgan])
def test_esrgan_without_unshuffle(network: type[nn.Module], scale: int, tmp_path: Path) -> None:
    twin = network(scale)
    path = _saved(twin.state_dict(), tmp_path)

    config = load_model(path).config
    assert (config["scale"], config["unshuffle"], config["blocks"]) == (scale, 1, 2)
    _assert_same_pictures(path, twin)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_compact(scale: int, wrapper: str | None, tmp_path: Path) -> None:
    twin = RealEsrganCompact(scale, features=8, layers=5)
    path = _saved(_wrapped(twin.state_dict(), wrapper), tmp_path)

    assert load_model(path).config == {
        "architecture": "compact",
        "scale": scale,
        "layers": 5,
        "features": 8,
        "activation": "prelu",
    }
    _assert_same_pictures(path, twin)


def test_compact_without_slopes_may_have_either_activation(tmp_path: Path) -> None:
    twin = RealEsrganCompact(2, activation=lambda _: nn.LeakyReLU(0.1))
    path = _saved(twin.state_dict(), tmp_path)

    origin = load_model(path).origin
    assert any(sentence.startswith("activation relu") for sentence in origin["evidence"])
    model = load_model(path, overrides={"activation": "leaky_relu"})
    image = torch.rand(1, 3, 6, 7)
    torch.testing.assert_close(model(image), twin(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "twin", [RealEsrgan(4), Bsrgan(4), FirstEsrgan(4), RealEsrganCompact(4)], ids=lambda t: type(t)
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_float16_files_are_read(twin: nn.Module, suffix: str, tmp_path: Path) -> None:
    twin.half()
    state = twin.state_dict()
    path = tmp_path / f"half{suffix}"
    if suffix == ".pth":
        torch.save({"params_ema": state}, path)
    else:
        save_file(state, path)
    twin.float()

    assert next(load_model(path).parameters()).dtype == torch.float32
    _assert_same_pictures(path, twin)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {**RealEsrgan(4).state_dict(), "conv_first.weight": torch.zeros(8, 1, 3, 3)},
            "has 1 channels into conv_first instead of 3, 12 or 48",
        ),
        (
            {**Bsrgan(1).state_dict(), "conv_first.weight": torch.zeros(8, 12, 3, 3)},
            "a pixel unshuffle by 2 before an enlargement by 1",
        ),
        (
            {**RealEsrgan(4).state_dict(), "body.0.rdb1.conv1x1.weight": torch.zeros(4, 8, 1, 1)},
            r"keys that do not belong there: body\.0\.rdb1\.conv1x1\.weight",
        ),
        (
            {k: v for k, v in RealEsrgan(4).state_dict().items() if "1.rdb3.conv5.b" not in k},
            r"lacks body\.1\.rdb3\.conv5\.bias",
        ),
        (
            {k: v for k, v in FirstEsrgan(4).state_dict().items() if not k.startswith("model.8")},
            r"convolutions 0\.weight and 3\.weight, 6\.weight, 10\.weight",
        ),
        (
            {**RealEsrganCompact(4).state_dict(), "body.8.weight": torch.zeros(40, 8, 3, 3)},
            r"has 40 channels out of body\.8 instead of 3 times a square",
        ),
        (
            {**RealEsrganCompact(4).state_dict(), "body.3.weight": torch.zeros(1)},
            r"tensor body\.3\.weight has shape \[1\]; \[8\] is needed",
        ),
    ],
)
def test_other_networks_of_these_names_are_refused(
    state: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load_model(_saved(state, tmp_path))


@pytest.mark.parametrize(
    "obstacle", [InputError("spandrel's ESRGAN " + 50 * "is unlike this, "), GhostsrError("broken")]
)
def test_the_packages_own_reason_comes_before_spandrels(
    obstacle: GhostsrError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Mapping[str, Tensor]) -> str:
        raise obstacle

    monkeypatch.setattr(spandrel_files, "spandrel_is_installed", lambda: True)
    monkeypatch.setattr(spandrel_files, "foreign_architecture", fail)
    state = {**RealEsrgan(4).state_dict(), "conv_first.weight": torch.zeros(8, 1, 3, 3)}
    path = _saved(state, tmp_path)

    with pytest.raises(InputError) as caught:
        load_model(path)

    own, _, second = str(caught.value).partition("; ")
    assert own.startswith(str(path))
    assert "has 1 channels into conv_first instead of 3, 12 or 48" in own
    assert second.startswith(str(obstacle)[:50])
    assert len(second) < 200
