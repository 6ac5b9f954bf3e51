import copy
import math
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from enlarger import Enlarger, lopsided_kernel
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.imaging import Picture, imresize, luma, rgb_to_ycbcr, ycbcr_to_rgb
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.inference import upscaler as upscaler_module
from ghostsr_ext.inference.pixels import to_values
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.nn import GhostConv2d
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)


def noise(rows, columns, channels=3, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max + 1, (rows, columns, channels), dtype)


def repeated(image, scale):
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("value_range", [1.0, 255.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_are_rounded_and_clipped(value_range, dtype):
    step = np.iinfo(dtype).max / 255
    network = Enlarger(value_range=value_range, offset=2.6 * value_range / 255)
    image = noise(7, 5, dtype=dtype)

    result = Upscaler(network)(image)

    expected = np.floor(image + 2.6 * step + 0.5).clip(0, np.iinfo(dtype).max)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, repeated(expected.astype(dtype), 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_in_0_to_1_and_not_rounded(dtype):
    image = RNG.random((7, 5, 3)).astype(dtype)

    result = Upscaler(Enlarger(offset=25.5))(image)

    assert result.dtype == dtype
    np.testing.assert_allclose(result, repeated((image + 0.1).clip(0, 1), 2), atol=1e-6)


def test_the_scale_can_be_chosen():
    upscaler = Upscaler(Enlarger(), scale=3)

    assert upscaler.scale == 3
    np.testing.assert_array_equal(upscaler(image := noise(4, 6)), repeated(image, 3))


def test_a_gray_array_stays_gray():
    image = noise(6, 8)[..., 0]

    np.testing.assert_array_equal(Upscaler(Enlarger())(image), repeated(image, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_opacity_is_enlarged_bicubically(dtype):
    image = noise(9, 6, 4, dtype)

    result = Upscaler(Enlarger())(image)

    np.testing.assert_array_equal(result[..., :3], repeated(image[..., :3], 2))
    np.testing.assert_array_equal(result[..., 3], imresize(image[..., 3], 2))


def test_a_luma_network_gets_luma_and_colors_are_enlarged_bicubically():
    network = Enlarger(color="y", input_upscaled=True, value_range=1.0)
    image = noise(8, 7)

    result = Upscaler(network)(image)

    ycbcr = imresize(rgb_to_ycbcr(image), 2)
    ycbcr[..., 0] = imresize(luma(image), 2)
    expected = np.floor(ycbcr_to_rgb(ycbcr) + 0.5).clip(0, 255)
    assert np.abs(result - expected).max() <= 1
    assert (result != expected).mean() < 0.01


def test_a_luma_network_makes_values_of_a_tiles_pixels_once(monkeypatch):
    network = Enlarger(color="y", input_upscaled=True, value_range=1.0)
    image = noise(24, 40)
    converted = []

    def counted(pixels, white, device):
        if pixels.dtype == np.uint8:
            converted.append(pixels.shape[:2])
        return to_values(pixels, white, device)

    monkeypatch.setattr(upscaler_module, "to_values", counted)
    Upscaler(network, tile=24)(image)

    assert len(converted) == 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_a_pillow_image_comes_back_as_one(mode):
    image = Image.fromarray(noise(6, 9)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(noise(6, 9, dtype=np.uint16)[..., 0])

    result = Upscaler(Enlarger())(image)

    assert result.size == (18, 12)
    assert result.mode == {"P": "RGB", "1": "L"}.get(mode, mode)
    expected = np.asarray(image.convert(result.mode))
    np.testing.assert_array_equal(np.asarray(result), repeated(expected, 2))


def test_a_pillow_image_keeps_its_color_profile():
    image = Image.fromarray(noise(4, 4))
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    assert Upscaler(Enlarger())(image).info["icc_profile"] == image.info["icc_profile"]


@pytest.mark.parametrize("tile", [5, 16, 18, "auto"])
@pytest.mark.parametrize(
    "network",
    [
        Enlarger(kernel=lopsided_kernel(), offset=0.1, value_range=1.0),
        Enlarger(kernel=lopsided_kernel(), color="y", input_upscaled=True),
    ],
    ids=["rgb", "enlarged luma"],
)
def test_tiles_change_nothing(network, tile):
    image = noise(37, 53, 4)

    whole = Upscaler(network, scale=3, tile=None)
    tiled = Upscaler(network, scale=3, tile=tile, memory_budget=1)

    np.testing.assert_array_equal(tiled(image), whole(image))
    np.testing.assert_allclose(
        tiled.values(image[..., :3]), whole.values(image[..., :3]), rtol=0, atol=1e-4
    )


def test_bands_are_the_picture_from_top_to_bottom(small_network):
    picture = Picture(noise(50, 40), noise(50, 40)[..., 0])
    upscaler = Upscaler(small_network, tile=16)

    bands = list(upscaler.bands(picture))

    assert [band.pixels.shape for band in bands] == [(32, 80, 3)] * 3 + [(4, 80, 3)]
    whole = upscaler(picture)
    np.testing.assert_array_equal(np.concatenate([band.pixels for band in bands]), whole.pixels)
    np.testing.assert_array_equal(np.concatenate([band.alpha for band in bands]), whole.alpha)


def test_self_ensemble_averages_the_eight_symmetries():
    kernel = lopsided_kernel()
    symmetries = [
        torch.rot90(flipped, turns, (2, 3))
        for flipped in (kernel, kernel.flip(3))
        for turns in range(4)
    ]
    image = noise(20, 31)

    ensemble = Upscaler(Enlarger(kernel=kernel), self_ensemble=True, tile=16).values(image)

    expected = Upscaler(Enlarger(kernel=torch.stack(symmetries).mean(0))).values(image)
    np.testing.assert_allclose(ensemble, expected, atol=1e-4)


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))]
)
@pytest.mark.parametrize("options", [{}, {"tile": 16, "self_ensemble": True}], ids=str)
def test_a_copy_does_the_same(small_network, copy_of, options):
    original, _ = convert(small_network)
    original = Upscaler(original, memory_budget=1 << 22, **options)
    image = noise(40, 30)
    expected, recipe = original(image), original.recipe()

    copied = copy_of(original)
    for parameter in original._network.parameters():
        parameter.data.zero_()

    np.testing.assert_array_equal(copied(image), expected)
    assert copied.recipe() == recipe


def test_the_network_given_is_not_changed():
    network = EDSR(scale=2, blocks=1, features=4).train()
    network.body[0].conv1 = GhostConv2d(4, 4, 3, padding=1, activation="relu")

    Upscaler(network, dtype=torch.float64)

    assert network.training
    assert network.body[0].conv1.logits is not None
    assert next(network.parameters()).dtype == torch.float32


def test_threads_can_share_one(small_network):
    upscaler = Upscaler(small_network, tile=16)
    images = [noise(30 + i, 40) for i in range(8)]
    expected = [upscaler(image) for image in images]

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(upscaler, images))

    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_enlarging_a_picture_does_not_wait_for_torchs_compiler(small_network, tmp_path):
    """It takes a second to import, as much as the rest of torch."""
    small_network, _ = convert(small_network)
    save_model(small_network, tmp_path / "net.safetensors")
    program = """
import sys
import numpy as np
from ghostsr_ext.inference import Upscaler
from ghostsr_ext.inference import upscaler as upscaler_module
from ghostsr_ext.inference.pixels import to_values
Upscaler(sys.argv[1])(np.zeros((20, 20, 3), np.uint8))
sys.exit("torch._dynamo" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", program, tmp_path / "net.safetensors"])

    assert done.returncode == 0


class Exhausting(Enlarger):
    """Has no memory for more than ``most`` pixels, but for the smallest pictures."""

    def __init__(self):
        super().__init__()
        self.most = math.inf
        self.tried = []

    def upscale(self, image, scale):
        if image.shape[2] <= 16:
            return super().upscale(image, scale)
        self.tried.append(image.shape[2])
        if image.shape[2] * image.shape[3] > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return super().upscale(image, scale)


def exhausting_upscaler(most, **options):
    upscaler = Upscaler(Exhausting(), **options)
    upscaler._network.most = most
    upscaler._network.tried.clear()
    return upscaler


def test_after_exhausted_memory_smaller_tiles_are_tried():
    upscaler = exhausting_upscaler(most=50 * 50)
    image = noise(150, 140)

    result = upscaler(image)

    np.testing.assert_array_equal(result, repeated(image, 2))
    tried = upscaler._network.tried
    assert tried[:2] == [150, 72]
    assert max(tried[2:]) <= 50


def test_when_even_small_tiles_do_not_fit_it_says_so():
    with pytest.raises(GhostsrError, match="not enough memory on cpu; tried tiles down to 32"):
        exhausting_upscaler(most=0)(noise(100, 100))


def test_without_tiles_it_advises_them():
    with pytest.raises(GhostsrError, match="not enough memory on cpu; pass a tile"):
        exhausting_upscaler(most=0, tile=None)(noise(100, 100))


def test_other_errors_are_not_taken_for_exhausted_memory(monkeypatch):
    def broken(self, image, scale):
        raise RuntimeError("broken")

    monkeypatch.setattr(Enlarger, "upscale", broken)

    with pytest.raises(RuntimeError, match="broken"):
        Upscaler(Enlarger())(noise(4, 4))


def test_an_output_that_is_not_finite_is_refused():
    network = Enlarger(offset=math.nan)

    with pytest.raises(GhostsrError, match=r"NaN or infinite values \(computed in float32\)"):
        Upscaler(network)(noise(4, 4))


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", "<f4", ">f8", "<f8"])
@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_of_either_byte_order_keep_it(dtype, channels):
    image = noise(4, 6, channels, np.uint16)
    native = image if dtype[1] == "u" else (image / 65535).astype(dtype[1:])
    upscaler = Upscaler(Enlarger(), tile=4)

    result = upscaler(native.astype(dtype))

    assert result.dtype == np.dtype(dtype)
    assert np.array_equal(result, upscaler(native))


def test_infinities_of_both_signs_are_refused():
    network = Enlarger()
    network.conv.bias.data[:2] = torch.tensor([math.inf, -math.inf])

    with pytest.raises(GhostsrError, match="NaN or infinite values"):
        Upscaler(network)(noise(4, 4))


def test_finite_values_whose_sum_is_not_are_clipped():
    network = Enlarger().double()
    network.conv.bias.data.fill_(1e308)

    assert (Upscaler(network)(noise(4, 4)) == 255).all()


def test_half_precision_that_overflows_says_what_helps():
    network = Enlarger(offset=1e5)

    with pytest.raises(GhostsrError, match=r"computed in float16\); compute in float32"):
        Upscaler(network, dtype=torch.float16)(noise(4, 4))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 2, 3), np.int32), "int32; must be uint8"),
        (np.zeros((0, 2, 3), np.uint8), "at least one pixel"),
        (np.zeros((2, 2, 5), np.uint8), r"shape \(2, 2, 5\)"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"shape \(1, 2, 2, 3\)"),
        (np.full((2, 2, 3), 1.5), "from 1.5 to 1.5; floats must be in 0..1"),
        (np.full((2, 2, 3), np.nan), "floats must be in 0..1"),
        ([[1, 2], [3, 4]], "list; must be a NumPy array"),
        (Picture(np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2), np.uint8)), "alpha: uint8"),
        (Image.fromarray(np.zeros((2, 2), np.float32)), "floating-point"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        Upscaler(Enlarger())(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 4}, "scale: found 4; this network serves x2, x3"),
        ({"tile": 0}, "tile: 0"),
        ({"tile": "big"}, "tile: 'big'"),
        ({"memory_budget": 0}, "memory_budget: 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Upscaler(Enlarger(), **options)


def test_a_model_that_is_no_file_is_refused():
    with pytest.raises(InputError, match="model nowhere: does not exist; a file or one of"):
        Upscaler("nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype: found 'float16'; allowed are torch.float32"),
        ({"dtype": torch.int32}, "dtype: found torch.int32; allowed are torch.float32"),
        ({"device": "cuda:99"}, "device: found 'cuda:99', which cannot be used here"),
        ({"device": "toaster"}, "device: found 'toaster', which cannot be used here"),
    ],
)
def test_where_and_in_what_to_compute_is_checked_in_one_sentence(options, message):
    with pytest.raises(InputError, match=message) as error:
        Upscaler("x2", **options)
    assert "\n" not in str(error.value)
