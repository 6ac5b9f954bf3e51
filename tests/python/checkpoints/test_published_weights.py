"""Real published weights: recognised, and as good on Set5 as their sources say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.imaging.read import read_image
from ghostsr_ext.metrics import Protocol, compare

PICTURES = ("baby", "bird", "butterfly", "head", "woman")

EXPECTED = {
    "carn_m_x234.pth": {
        "architecture": "carn",
        "scale": [2, 3, 4],
        "groups": 4,
        "recursive": True,
        "value_range": 1.0,
    },
    "carn_x2.pth": {"architecture": "carn", "scale": 2, "groups": 1, "recursive": False},
    "edsr_mobile_f32b5_x2.pth": {"blocks": 5, "features": 32, "tail": "direct", "mean": None},
    "edsr_mobile_f64b5_x2.pth": {
        "blocks": 5,
        "features": 64,
        "value_range": 255.0,
        "residual_scale": 1.0,
    },
    "edsr_r8f64_x2.pth": {
        "architecture": "edsr",
        "blocks": 8,
        "features": 64,
        "scale": 2,
        "residual_scale": 1.0,
        "value_range": 255.0,
        "tail": "pixel_shuffle",
    },
    "rdn_c3d10g64_x2_idealo.pth": {
        "architecture": "rdn",
        "blocks": 10,
        "layers": 3,
        "growth": 64,
        "features": 64,
        "tail": "nearest",
        "value_range": 1.0,
    },
    "vdsr_caffe_huangzehao.pth": {"architecture": "vdsr", "layers": 20, "bias": True},
    "vdsr_twtygqyy.pth": {"architecture": "vdsr", "layers": 20, "bias": False, "color": "y"},
}


@pytest.mark.parametrize("file", EXPECTED)
def test_hyperparameters_are_found(file: str, data_dir: Path) -> None:
    config = load_model(data_dir / "weights" / file).config
    assert {key: config[key] for key in EXPECTED[file]} == EXPECTED[file]


def test_value_range_is_found_in_weights_rescaled_to_one(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "weights" / "edsr_mobile_f64b5_x2.pth"
    state = torch.load(source, weights_only=True, map_location="cpu")
    # A ReLU network is homogeneous, so its biases alone carry the value range.
    rescaled = {k: v / 255 if k.endswith("bias") else v for k, v in state.items()}
    torch.save(rescaled, tmp_path / "rescaled.pth")
    model, original = load_model(tmp_path / "rescaled.pth"), load_model(source)
    assert (original.value_range, model.value_range) == (255.0, 1.0)
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(255 * model(image), original(255 * image), rtol=1e-3, atol=1e-2)


def test_residual_scale_is_found_in_weights_trained_with_another(
    data_dir: Path, tmp_path: Path
) -> None:
    state = torch.load(
        data_dir / "weights" / "edsr_r8f64_x2.pth", weights_only=True, map_location="cpu"
    )
    for key in state:
        if ".body.2." in key:
            state[key] = 10 * state[key]
    torch.save(state, tmp_path / "tenfold.pth")
    assert load_model(tmp_path / "tenfold.pth").config["residual_scale"] == 0.1


@pytest.fixture(scope="module")
def golden(data_dir: Path) -> dict[str, Any]:
    return json.loads((data_dir / "golden" / "measured_per_image.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "scale", "network"),
    [
        ("edsr_r8f64_x2.pth", 2, "EDSR r8f64 (krasserm) x2"),
        ("edsr_mobile_f64b5_x2.pth", 2, "EDSR f64b5 (mlcommons) x2"),
        ("edsr_mobile_f32b5_x2.pth", 2, "EDSR f32b5 (mlcommons) x2"),
        ("carn_x2.pth", 2, "CARN_2x x2"),
        ("carn_m_x234.pth", 2, "CARN-M x2"),
        ("carn_m_x234.pth", 3, "CARN-M x3"),
        ("carn_m_x234.pth", 4, "CARN-M x4"),
        ("rdn_c3d10g64_x2_idealo.pth", 2, "RDN C3D10 fp32 (idealo) x2"),
    ],
)
def test_set5_is_as_published(
    file: str, scale: int, network: str, data_dir: Path, golden: dict[str, Any]
) -> None:
    model = load_model(data_dir / "weights" / file)
    for index, picture in enumerate(PICTURES):
        original = read_image(data_dir / "Set5" / "HR" / f"{picture}.png")
        low = data_dir / "Set5" / "LR_bicubic" / f"X{scale}" / f"{picture}x{scale}.png"
        unit = model.value_range / 255
        image = torch.from_numpy(read_image(low).astype(np.float32)).permute(2, 0, 1)[None] * unit
        with torch.inference_mode():
            output = model(image, scale)[0].permute(1, 2, 0).double().numpy() / unit
        rows, columns = output.shape[:2]
        quality = compare(output, original[:rows, :columns], Protocol.benchmark(scale))
        assert quality.psnr == pytest.approx(golden[network]["psnr"][index], abs=0.001)
        if "ssim" in golden[network]:
            assert quality.ssim == pytest.approx(golden[network]["ssim"][index], abs=5e-5)
