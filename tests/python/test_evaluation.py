import json
import math
import shutil

import numpy as np
import pytest
import torch
from enlarger import Enlarger, lopsided_kernel
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.evaluation import default_protocol, evaluate
from ghostsr_ext.imaging import imresize, luma, rgb_to_ycbcr, write_image, ycbcr_to_rgb
from ghostsr_ext.inference import upscaler
from ghostsr_ext.metrics import Protocol, compare
from ghostsr_ext.models.locality import Locality

RNG = np.random.default_rng(0)
HIGHS = {"a": RNG.integers(0, 256, (36, 48, 3), np.uint8)}
HIGHS["b"] = imresize(RNG.integers(0, 256, (10, 9, 3), np.uint8), 4)
LOWS = {
    name: RNG.integers(0, 256, imresize(high, 0.5).shape, np.uint8) for name, high in HIGHS.items()
}


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "Two/HR").mkdir(parents=True)
    (tmp_path / "Two/LR_bicubic/X2").mkdir(parents=True)
    for name in HIGHS:
        write_image(tmp_path / f"Two/HR/{name}.png", HIGHS[name])
        write_image(tmp_path / f"Two/LR_bicubic/X2/{name}x2.png", LOWS[name])
    return open_picture_set(tmp_path / "Two")


def repeated(image, scale):
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_every_picture_is_measured_by_the_protocol_in_the_networks_own_range(pictures, value_range):
    model = Enlarger(value_range=value_range, offset=3 * value_range / 255)

    result = evaluate(model, pictures, 2)

    assert result.protocol == Protocol.benchmark(2)
    assert [image.name for image in result.images] == ["a", "b"]
    for image in result.images:
        output = repeated(LOWS[image.name].astype(float) + 3, 2)
        expected = compare(output, HIGHS[image.name], Protocol.benchmark(2))
        assert image.psnr == pytest.approx(expected.psnr, abs=1e-6)
        assert image.ssim == pytest.approx(expected.ssim, abs=1e-6)
    assert result.psnr == pytest.approx(np.mean([image.psnr for image in result.images]))
    assert result.ssim == pytest.approx(np.mean([image.ssim for image in result.images]))
    assert result.inputs == "files"


def test_small_pictures_are_made_at_a_scale_that_has_no_files(pictures):
    result = evaluate(Enlarger(), pictures, 3)

    high = HIGHS["b"][:39]
    expected = compare(repeated(imresize(high[:39], 1 / 3), 3), high, Protocol.benchmark(3))
    assert result.images[1].psnr == pytest.approx(expected.psnr, abs=1e-6)
    assert result.inputs == "imresize"


def test_vdsr_gets_luma_of_the_original_reduced_and_enlarged_in_floating_point(pictures):
    model = Enlarger(color="y", value_range=1.0, input_upscaled=True, offset=1 / 255)

    result = evaluate(model, pictures, 2)

    assert result.protocol == default_protocol(model, 2) == Protocol.vdsr(2)
    assert result.inputs == "imresize"
    y = luma(HIGHS["b"])
    output = (imresize(imresize(y, 0.5), 2) + 1).clip(0, 255)
    mse = np.mean((output - y)[2:-2, 2:-2] ** 2)
    assert result.images[1].psnr == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-4)


def test_a_luma_network_can_be_measured_in_color_with_bicubic_chroma(pictures):
    model = Enlarger(color="y", input_upscaled=True)

    result = evaluate(model, pictures, 2, Protocol("rgb"))

    ycbcr = rgb_to_ycbcr(imresize(LOWS["a"].astype(float), 2))
    ycbcr[..., 0] = imresize(luma(LOWS["a"]), 2)
    expected = compare(ycbcr_to_rgb(ycbcr), HIGHS["a"], Protocol("rgb"))
    assert result.images[0].psnr == pytest.approx(expected.psnr, abs=1e-3)


@pytest.mark.parametrize("tile", [1, 7, 16, 18, 100])
@pytest.mark.parametrize("upscaled", [False, True])
def test_tiles_change_nothing(pictures, tile, upscaled):
    model = Enlarger(kernel=lopsided_kernel(), input_upscaled=upscaled, value_range=1.0, offset=0.1)
    protocol = Protocol(output_rounding="float")

    whole = evaluate(model, pictures, 2, protocol)
    tiled = evaluate(model, pictures, 2, protocol, tile=tile)

    assert tiled.tile == tile
    for one, other in zip(whole.images, tiled.images, strict=True):
        assert other.psnr == pytest.approx(one.psnr, abs=1e-5)


def test_self_ensemble_averages_the_eight_symmetries(pictures):
    kernel = lopsided_kernel()
    symmetries = [
        torch.rot90(flipped, turns, (2, 3))
        for flipped in (kernel, kernel.flip(3))
        for turns in range(4)
    ]
    mean = torch.stack(symmetries).mean(0)
    protocol = Protocol(output_rounding="float")

    ensemble = evaluate(Enlarger(kernel=kernel), pictures, 2, protocol, self_ensemble=True)
    expected = evaluate(Enlarger(kernel=mean), pictures, 2, protocol)
    alone = evaluate(Enlarger(kernel=kernel), pictures, 2, protocol)

    assert ensemble.self_ensemble
    assert ensemble.psnr == pytest.approx(expected.psnr, abs=1e-5)
    assert abs(alone.psnr - expected.psnr) > 1e-3


def test_progress_is_told_after_each_picture(pictures):
    told = []

    evaluate(Enlarger(), pictures, 2, progress=lambda *event: told.append(event))

    assert told == [(1, 2, "a"), (2, 2, "b")]


def test_the_training_mode_is_restored_and_no_gradient_kept(pictures):
    model = Enlarger().train()

    evaluate(model, pictures, 2)

    assert model.training
    assert model.conv.weight.grad is None


def test_the_dtype_asked_for_is_used_and_recorded(pictures):
    result = evaluate(Enlarger(), pictures, 2, dtype=torch.float64, device="cpu")

    assert (result.dtype, result.device) == ("float64", "cpu")


def test_the_result_is_json_with_the_protocol_and_every_picture(pictures):
    result = evaluate(Enlarger(), pictures, 2)

    document = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert document["psnr"] == result.psnr
    assert document["ssim"] == result.ssim
    assert [image["name"] for image in document["images"]] == ["a", "b"]
    assert document["protocol"]["crop_border"] == 2
    assert document["dataset"] == "Two"


def test_perfect_and_tiny_pictures_are_null_in_json(tmp_path):
    write_image(tmp_path / "flat.png", np.full((10, 10, 3), 9, np.uint8))

    result = evaluate(Enlarger(), open_picture_set(tmp_path), 2)

    assert result.psnr == math.inf
    assert math.isnan(result.ssim)
    document = result.as_dict()
    assert document["psnr"] is document["ssim"] is document["images"][0]["psnr"] is None


def test_a_scale_that_the_network_does_not_serve_is_refused(pictures):
    with pytest.raises(InputError, match="scale: found 4; this network serves x2, x3"):
        evaluate(Enlarger(), pictures, 4)


def test_a_tile_without_pixels_is_refused(pictures):
    with pytest.raises(InputError, match="tile: 0"):
        evaluate(Enlarger(), pictures, 2, tile=0)


def test_a_network_that_returns_nan_is_reported_with_the_picture(pictures):
    with pytest.raises(InputError, match=r"a\.png: output: has NaN or infinite values"):
        evaluate(Enlarger(offset=math.nan), pictures, 2)


def test_a_picture_that_does_not_fit_in_memory_is_reported_with_advice(pictures, monkeypatch):
    def exhausted(self, image, scale):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Enlarger, "upscale", exhausted)
    monkeypatch.setattr(upscaler, "locality", lambda _: Locality(0, (), 1))

    with pytest.raises(GhostsrError, match=r"a\.png: not enough memory on cpu; pass a tile"):
        evaluate(Enlarger(), pictures, 2, tile=None)


@pytest.mark.parametrize(
    ("file", "reference", "scales"),
    [
        ("edsr_mobile_f64b5_x2.pth", "EDSR f64b5 (mlcommons)", [2]),
        ("carn_m_x234.pth", "CARN-M", [2, 3, 4]),
        ("vdsr_twtygqyy.pth", "VDSR double", [2, 3, 4]),
    ],
)
def test_published_weights_have_their_golden_psnr_and_ssim(
    data_dir, tmp_path, file, reference, scales
):
    """On the smallest picture; benchmarks/reproduce_published.py measures all of Set5."""
    golden = json.loads((data_dir / "golden/measured_per_image.json").read_text())
    index = ["baby", "bird", "butterfly", "head", "woman"].index("butterfly")
    for folder in ("HR", "LR_bicubic/X2", "LR_bicubic/X3", "LR_bicubic/X4"):
        (tmp_path / folder).mkdir(parents=True)
        for path in (data_dir / "Set5" / folder).glob("butterfly*"):
            shutil.copy(path, tmp_path / folder)
    model = load_model(data_dir / "weights" / file)

    for scale in scales:
        result = evaluate(model, open_picture_set(tmp_path), scale)

        expected = golden[f"{reference} x{scale}"]
        assert result.psnr == pytest.approx(expected["psnr"][index], abs=0.001)
        assert result.ssim == pytest.approx(expected["ssim"][index], abs=1e-5)
