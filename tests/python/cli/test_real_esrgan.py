"""Real-ESRGAN's published files give the pictures that plain torch gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ghostsr_cli.main import create_app
from ghostsr_ext.imaging import read_picture, write_image
from published_networks import RealEsrgan, RealEsrganCompact
from torch import nn
from typer.testing import CliRunner

NETWORKS = {
    "realesrgan_x4plus_anime_6b.pth": lambda: RealEsrgan(4, features=64, growth=32, blocks=6),
    "realesr_animevideov3_x4.pth": lambda: RealEsrganCompact(4, features=64, layers=16),
}
SMALL = ("butterfly", "woman")
LARGE = ("baby", "bird", "head")


def _twin(weights: Path) -> nn.Module:
    """The network in plain torch, with the tensors under the names of its own code."""
    twin = NETWORKS[weights.name]()
    (state,) = torch.load(weights, weights_only=True, map_location="cpu").values()
    twin.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
    return twin.eval()


@pytest.mark.parametrize("file", NETWORKS)
@pytest.mark.parametrize("pictures", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_upscale_equals_plain_torch_within_one_gray_level(
    data_dir: Path, tmp_path: Path, file: str, pictures: tuple[str, ...]
) -> None:
    weights = data_dir / "weights" / file
    sources = [data_dir / "Set5" / "LR_bicubic" / "X4" / f"{name}x4.png" for name in pictures]

    arguments = ["upscale", *sources, "--model", weights, "--output", tmp_path]
    result = CliRunner().invoke(create_app(), list(map(str, arguments)))

    assert result.exit_code == 0, result.output
    twin = _twin(weights)
    for source in sources:
        image = torch.tensor(read_picture(source).pixels).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            values = twin(image)[0].permute(1, 2, 0).numpy()
        expected = np.floor(values * 255 + 0.5).clip(0, 255)
        found = read_picture(tmp_path / f"{source.stem}_x4.png").pixels.astype(float)
        assert np.abs(found - expected).max() <= 1
        # A gray level may fall to the other side of a half, but not in many places.
        assert (found != expected).mean() < 1e-3


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(create_app(), list(map(str, arguments)))
    assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
    return result.output


@pytest.mark.slow
def test_a_converted_network_goes_through_every_command(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnxscript", "onnxruntime", "openvino", "ncnn", "pnnx"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    dense = data_dir / "weights" / "realesrgan_x4plus_anime_6b.pth"
    Path("set", "HR").mkdir(parents=True)
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8)
        write_image(Path("set", "HR", f"{number}.png"), noise)
    small = data_dir / "Set5" / "LR_bicubic" / "X4" / "womanx4.png"

    _run("convert", dense, "ghost.safetensors", "--method", "kmeans")
    described = _run("info", "ghost.safetensors")
    _run("upscale", small, "--model", "ghost.safetensors", "--output", "enlarged")
    _run("bench", dense, "ghost.safetensors", "--size", "24x16", "--repeats", 1)
    _run("eval", dense, "ghost.safetensors", "--data", "set")
    measured = ("--data", "set", "--size", "24x16", "--repeats", 1)
    _run("report", dense, "ghost.safetensors", *measured, "--output", "page.html")

    assert described.startswith("rrdbnet, x4")
    assert "90 of 96 convolutions are ghost layers" in described
    assert read_picture("enlarged/womanx4_x4.png").pixels.shape[:2] == tuple(
        4 * side for side in read_picture(small).pixels.shape[:2]
    )
    assert "realesrgan_x4plus_anime_6b" in Path("page.html").read_text(encoding="utf-8")
    for number, (name, runtime) in enumerate(
        {"net.onnx": "ONNX Runtime", "net.xml": "OpenVINO", "net.param": "ncnn"}.items()
    ):
        Path(str(number)).mkdir()
        told = _run("export", "ghost.safetensors", Path(str(number), name))
        assert f"{runtime} " in told
        assert "differs by at most" in told
