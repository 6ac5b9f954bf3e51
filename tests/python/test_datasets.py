from pathlib import Path

import numpy as np
import pytest
from ghostsr_ext.datasets import open_picture_set
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import imresize, read_image, write_image
from PIL import Image

RNG = np.random.default_rng(0)
HIGH = RNG.integers(0, 256, (25, 31, 3), np.uint8)
LOW = RNG.integers(0, 256, (12, 15, 3), np.uint8)


def save(path: Path, image=HIGH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image)
    return path


@pytest.mark.parametrize(
    ("opened", "high", "low", "name"),
    [
        ("Set", "Set/HR", "Set/LR_bicubic/X2", "Set"),
        ("Set/HR", "Set/HR", "Set/LR_bicubic/X2", "Set"),
        (".", "DIV2K_valid_HR", "DIV2K_valid_LR_bicubic/X2", "DIV2K_valid_HR"),
        ("DIV2K_valid_HR", "DIV2K_valid_HR", "DIV2K_valid_LR_bicubic/X2", "DIV2K_valid_HR"),
        ("Set", "Set/GTmod12", "Set/LRbicx2", "Set"),
    ],
)
@pytest.mark.parametrize("suffix", ["", "x2", "X2"])
def test_pairs_are_found_in_the_usual_layouts(tmp_path, opened, high, low, name, suffix):
    save(tmp_path / high / "b.png")
    save(tmp_path / high / "a.png", HIGH[:24])
    save(tmp_path / low / f"a{suffix}.png", LOW)
    save(tmp_path / low / f"b{suffix}.png", LOW)

    pictures = open_picture_set(tmp_path / opened)

    assert pictures.name == name
    assert pictures.low_folder(2) == tmp_path / low
    assert [pair.name for pair in pictures.pairs(2)] == ["a", "b"]
    for pair in pictures.pairs(2):
        np.testing.assert_array_equal(pair.read_high(), HIGH[:24, :30])
        np.testing.assert_array_equal(pair.read_low(), LOW)


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("img_001_SRF_2_HR", "img_001_SRF_2_LR"),
        ("Canon_001_HR", "Canon_001_LR2"),
        ("baby_GT", "baby_LRx2"),
        ("baby-hr", "baby-lr"),
    ],
)
def test_originals_and_small_versions_in_one_folder_are_told_apart(tmp_path, high, low):
    save(tmp_path / "set" / f"{high}.png")
    save(tmp_path / "set" / f"{low}.png", LOW)
    save(tmp_path / "set" / f"{high[:-3]}_bicubic.png")

    (pair,) = open_picture_set(tmp_path / "set").pairs(2)

    assert pair.name == high
    assert pair.low_path == tmp_path / "set" / f"{low}.png"
    np.testing.assert_array_equal(pair.read_low(), LOW)


def test_small_versions_of_several_scales_in_one_folder(tmp_path):
    save(tmp_path / "a_HR.png")
    save(tmp_path / "a_LR2.png", LOW)
    save(tmp_path / "a_LR3.png", LOW[:8, :10])

    pictures = open_picture_set(tmp_path)

    assert pictures.pairs(2)[0].low_path == tmp_path / "a_LR2.png"
    assert pictures.pairs(3)[0].low_path == tmp_path / "a_LR3.png"
    (pair,) = pictures.pairs(4)
    assert (pair.name, pair.low_path) == ("a_HR", None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_HR", "a_LR", "b_HR"], r"has no small version of b_HR\.png for x2"),
        (["a_HR", "a_LR", "b_LR"], r"b_LR\.png is a small version by its name.*no b_HR beside it"),
        (["a", "a_LR"], r"a_LR\.png is a small version by its name"),
        (["a_HR", "a_LR", "photo"], r"pairs of \*_HR and \*_LR, and photo\.png of neither"),
        (["a_HR", "a_GT", "a_LR"], "are both originals of the same name"),
        (["a_HR", "a_LR", "a_LR2"], r"are both small versions of a_HR\.png"),
    ],
)
def test_folders_of_pairs_and_something_else_are_refused(tmp_path, names, message):
    for name in names:
        save(tmp_path / f"{name}.png", LOW if "_LR" in name else HIGH)
    with pytest.raises(InputError, match=message):
        open_picture_set(tmp_path).pairs(2)


def test_small_versions_of_the_originals_size_are_refused(tmp_path):
    save(tmp_path / "Canon_001_HR.png")
    save(tmp_path / "Canon_001_LR2.png")
    with pytest.raises(InputError, match=r"31x25 does not fit .* must be 15x12"):
        open_picture_set(tmp_path).pairs(2)


@pytest.mark.parametrize("folder", ["HR", "Kodak_HR", "photos"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_small_versions_are_made_where_there_are_none(tmp_path, folder, scale):
    save(tmp_path / folder / "a.png")

    pictures = open_picture_set(tmp_path / folder)
    (pair,) = pictures.pairs(scale)

    high = HIGH[: 25 // scale * scale, : 31 // scale * scale]
    assert pictures.low_folder(scale) is None
    np.testing.assert_array_equal(pair.read_high(), high)
    np.testing.assert_array_equal(pair.read_low(), imresize(high, 1 / scale))


def test_set5_made_here_equals_its_published_small_versions(data_dir):
    for pair in open_picture_set(data_dir / "Set5").pairs(3):
        np.testing.assert_array_equal(imresize(pair.read_high(), 1 / 3), pair.read_low())


def test_a_small_version_may_have_the_very_name_of_an_original_that_ends_in_the_scale(tmp_path):
    for name in ("zoom", "zoomx2"):
        save(tmp_path / f"HR/{name}.png")
    save(tmp_path / "LR_bicubic/X2/zoomx2x2.png", LOW)
    save(tmp_path / "LR_bicubic/X2/zoom.png", LOW)

    lows = [pair.low_path.name for pair in open_picture_set(tmp_path).pairs(2)]
    assert lows == ["zoom.png", "zoomx2x2.png"]


def test_pixels_are_not_read_before_they_are_asked_for(tmp_path):
    path = save(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:200])

    (pair,) = open_picture_set(tmp_path).pairs(2)

    with pytest.raises(InputError, match=r"a\.png: is broken or truncated"):
        pair.read_high()


def test_a_picture_that_changes_meanwhile_is_noticed(tmp_path):
    high = save(tmp_path / "HR/a.png")
    low = save(tmp_path / "LR_bicubic/X2/a.png", LOW)
    (pair,) = open_picture_set(tmp_path).pairs(2)

    write_image(high, HIGH[:20], overwrite=True)
    write_image(low, LOW[:10], overwrite=True)

    for read, path in ((pair.read_high, high), (pair.read_low, low)):
        with pytest.raises(InputError, match=f"{path}: has changed"):
            read()


def test_the_originals_are_given_as_three_channels_of_8_bits(tmp_path):
    Image.fromarray(HIGH[..., 0]).save(tmp_path / "gray.png")

    (pair,) = open_picture_set(tmp_path).pairs(2)

    np.testing.assert_array_equal(pair.read_high(), np.stack([HIGH[:24, :30, 0]] * 3, axis=2))
    assert read_image(tmp_path / "gray.png").dtype == np.uint8


def no_low(root):
    for name in "abcdefg":
        save(root / f"HR/{name}.png")
    save(root / "LR_bicubic/X2/cx2.png", LOW)


def extra_low(root):
    save(root / "HR/a.png")
    save(root / "LR_bicubic/X2/ax2.png", LOW)
    save(root / "LR_bicubic/X2/zx2.png", LOW)


def two_lows(root):
    save(root / "HR/a.png")
    save(root / "LR_bicubic/X2/a.png", LOW)
    save(root / "LR_bicubic/X2/ax2.png", LOW)


def wrong_size(root):
    save(root / "HR/a.png")
    save(root / "LR_bicubic/X2/ax2.png", LOW[1:])


def same_stem(root):
    save(root / "a.png")
    save(root / "a.jpg")


def several_sets(root):
    save(root / "one_HR/a.png")
    save(root / "two_HR/a.png")


def not_a_picture(root):
    save(root / "HR/a.png")
    (root / "HR/a.png").write_text("words")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            no_low,
            r"X2: has no small version of a\.png, b\.png, d\.png, e\.png, f\.png and 1 more "
            r"\(expected names such as ax2\.png\)",
        ),
        (extra_low, r"X2: no original belongs to zx2\.png"),
        (two_lows, r"X2: a\.png, ax2\.png are all small versions of a\.png"),
        (wrong_size, r"ax2\.png: 15x11 does not fit .*HR/a\.png of 31x25 at x2; must be 15x12"),
        (same_stem, r"a\.png: has the same name as a\.jpg"),
        (several_sets, r"has several sets \(one_HR, two_HR\); name one of them"),
        (not_a_picture, r"HR/a\.png: is not a picture"),
        (lambda root: save(root / "a.png", HIGH[:1]), r"a\.png: 31x1 is too small for x2"),
        (lambda root: (root / "HR").mkdir(), "HR: has no pictures; expected"),
        (lambda root: None, "has no pictures; expected"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(tmp_path, make, message):
    make(tmp_path)

    with pytest.raises(InputError, match=message):
        open_picture_set(tmp_path).pairs(2)


def test_a_missing_folder_and_a_wrong_scale_are_named(tmp_path):
    with pytest.raises(InputError, match="gone: is not a folder"):
        open_picture_set(tmp_path / "gone")
    for scale in (0, 1.5):
        with pytest.raises(InputError, match=f"scale: {scale}; must be a whole number"):
            open_picture_set(tmp_path).pairs(scale)


def test_pictures_in_folders_inside_keep_their_folder_in_their_name(tmp_path):
    for name in ("c", "day/a", "night/a"):
        save(tmp_path / f"photos/{name}.png")

    pairs = open_picture_set(tmp_path / "photos").pairs(2)

    assert [pair.name for pair in pairs] == ["c", "day/a", "night/a"]


def test_samples_are_two_photographs_that_every_installation_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    pictures = open_picture_set("samples")

    assert pictures.name == "samples"
    assert [(pair.name, pair.size) for pair in pictures.pairs(2)] == [
        ("china", (426, 640)),
        ("flower", (426, 640)),
    ]


def test_a_folder_of_the_name_samples_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "samples/mine.png")

    assert [pair.name for pair in open_picture_set("samples").pairs(2)] == ["mine"]
