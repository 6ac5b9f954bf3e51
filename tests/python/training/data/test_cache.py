import multiprocessing
import os

import numpy as np
import pytest
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.imaging import imresize, read_image, write_image
from ghostsr_ext.training.data import default_cache_folder, open_cached


def test_small_pictures_are_those_of_matlab(pictures, tmp_path):
    store = open_cached([pictures], 2, 8, tmp_path / "cache")

    for index, pair in enumerate(store.pairs):
        original = read_image(pictures / f"{pair.name}.png")
        assert np.array_equal(store.high(index), original)
        assert np.array_equal(store.low(index), imresize(original, 0.5))


def test_small_pictures_that_a_set_brings_are_taken(tmp_path):
    high, low = np.full((24, 24, 3), 200, np.uint8), np.full((12, 12, 3), 7, np.uint8)
    for path, image in (
        (tmp_path / "DIV2K_train_HR" / "0001.png", high),
        (tmp_path / "DIV2K_train_LR_bicubic" / "X2" / "0001x2.png", low),
    ):
        path.parent.mkdir(parents=True)
        write_image(path, image)

    store = open_cached([tmp_path], 2, 8, tmp_path / "cache")

    assert np.array_equal(store.low(0), low)


def test_several_sets_are_one_store(pictures, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    write_image(more / "x.png", np.zeros((16, 16, 3), np.uint8))

    assert len(open_cached([pictures, more], 2, 8, tmp_path / "cache")) == 5


def test_pictures_are_decoded_once_and_again_when_one_has_changed(pictures, tmp_path):
    decoded = []
    for _ in range(2):
        open_cached(
            [pictures], 2, 8, tmp_path / "cache", progress=lambda done, _: decoded.append(done)
        )
    assert decoded == [1, 2, 3, 4]

    os.utime(pictures / "0.png", ns=(0, 0))
    open_cached([pictures], 2, 8, tmp_path / "cache", progress=lambda done, _: decoded.append(done))
    assert decoded == [1, 2, 3, 4] * 2


def open_and_count(folder, cache, gate, queue):
    gate.wait()
    decoded = []
    open_cached([folder], 2, 8, cache, progress=lambda done, _: decoded.append(done))
    queue.put(len(decoded))


def test_of_two_processes_that_start_at_once_one_decodes(pictures, tmp_path):
    context = multiprocessing.get_context("fork")
    gate, queue = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=open_and_count, args=(pictures, tmp_path / "cache", gate, queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    counts = sorted(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()

    assert counts == [0, 4]


def test_a_broken_picture_is_named(pictures, tmp_path):
    broken = (pictures / "1.png").read_bytes()
    (pictures / "1.png").write_bytes(broken[: len(broken) // 2])

    with pytest.raises(InputError, match=r"1\.png.*on_unreadable = .skip. leaves"):
        open_cached([pictures], 2, 8, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("pictures-*"))


def test_a_picture_smaller_than_the_patch_is_named(pictures, tmp_path):
    with pytest.raises(InputError, match=r"0\.png: 60x48 at x2 is smaller than a patch of 25x25"):
        open_cached([pictures], 2, 25, tmp_path / "cache")


def test_broken_and_small_pictures_are_left_out_when_asked_for(pictures, tmp_path):
    (pictures / "4.png").write_bytes(b"no picture")

    with pytest.warns(UserWarning, match="left out") as warned:
        store = open_cached([pictures], 2, 28, tmp_path / "cache", on_unreadable="skip")

    assert [pair.name for pair in store.pairs] == ["2"]
    assert sum("4.png" in str(warning.message) for warning in warned) == 1
    assert len(warned) == 4


def test_nothing_left_is_an_error(pictures, tmp_path):
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(InputError, match="none of the pictures can be used"),
    ):
        open_cached([pictures], 2, 100, tmp_path / "cache", on_unreadable="skip")


def test_a_cache_that_cannot_be_made_is_named(pictures, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(GhostsrError, match=r"cache .*file/cache: cannot be written"):
        open_cached([pictures], 2, 8, tmp_path / "file" / "cache")


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert default_cache_folder() == tmp_path / "ghostsr"


def test_pictures_also_serve_reduced(pictures, tmp_path):
    store = open_cached([pictures], 2, 8, tmp_path / "cache", sizes=(1.0, 0.5))
    whole = open_cached([pictures], 2, 8, tmp_path / "cache")
    assert len(store) == 2 * len(whole)
    for index in range(len(whole)):
        assert np.array_equal(store.high(index), whole.high(index))
        half = imresize(whole.high(index), 0.5)
        half = half[: half.shape[0] // 2 * 2, : half.shape[1] // 2 * 2]
        assert np.array_equal(store.high(len(whole) + index), half)
        assert np.array_equal(store.low(len(whole) + index), imresize(half, 0.5))


def test_a_set_with_small_versions_of_its_own_is_not_reduced(pictures, tmp_path):
    folder = tmp_path / "set"
    (folder / "LR_bicubic" / "X2").mkdir(parents=True)
    pictures.rename(folder / "HR")
    for path in (folder / "HR").iterdir():
        write_image(folder / "LR_bicubic" / "X2" / path.name, imresize(read_image(path), 0.5))
    with pytest.raises(InputError, match="cannot be reduced"):
        open_cached([folder], 2, 8, tmp_path / "cache", sizes=(0.5,))


def test_a_picture_that_is_too_small_once_reduced_is_named(pictures, tmp_path):
    with pytest.raises(InputError, match="too small for x2"):
        open_cached([pictures], 2, 8, tmp_path / "cache", sizes=(0.02,))


def test_a_picture_that_is_too_small_once_reduced_is_left_out_when_asked_for(pictures, tmp_path):
    options = {"sizes": (1.0, 0.02), "on_unreadable": "skip"}
    with pytest.warns(UserWarning, match="left out at 0.02 of its size"):
        store = open_cached([pictures], 2, 8, tmp_path / "cache", **options)

    assert len(store) == len(open_cached([pictures], 2, 8, tmp_path / "cache"))
