import json
import pickle

import numpy as np
import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.training.data.store import PictureStore, write_store


def pair(seed):
    generator = np.random.default_rng(seed)
    return (
        f"picture{seed}",
        generator.integers(0, 256, (6, 8, 3), np.uint8),
        generator.integers(0, 256, (3, 4, 3), np.uint8),
    )


@pytest.fixture
def folder(tmp_path):
    write_store(tmp_path, 2, [pair(0), pair(1)])
    return tmp_path


def test_pictures_come_back_as_they_were(folder):
    store = PictureStore(folder)

    assert len(store) == 2
    assert store.scale == 2
    for index in range(2):
        name, high, low = pair(index)
        assert store.pairs[index].name == name
        assert np.array_equal(store.high(index), high)
        assert np.array_equal(store.low(index), low)
    store.verify()


def test_another_process_opens_the_file_for_itself(folder):
    store = PictureStore(folder)
    store.high(0)

    message = pickle.dumps(store)

    assert len(message) < 1000
    assert np.array_equal(pickle.loads(message).high(1), pair(1)[1])


def test_pictures_cannot_be_written_to(folder):
    with pytest.raises(ValueError, match="read-only"):
        PictureStore(folder).high(0)[0, 0] = 0


def test_a_changed_pixel_is_found(folder):
    pixels = bytearray((folder / "pixels.bin").read_bytes())
    pixels[-1] ^= 1
    (folder / "pixels.bin").write_bytes(pixels)

    with pytest.raises(InputError, match="the copy of picture1 is damaged"):
        PictureStore(folder).verify()


@pytest.mark.parametrize("damage", ["short", "no index", "no json", "version"])
def test_a_damaged_folder_is_refused(folder, damage):
    index = folder / "index.json"
    if damage == "short":
        (folder / "pixels.bin").write_bytes(b"\0")
    elif damage == "no index":
        index.unlink()
    elif damage == "no json":
        index.write_text("{")
    else:
        index.write_text(json.dumps({**json.loads(index.read_text()), "format_version": 99}))

    with pytest.raises(InputError, match=r"cache .* remove it"):
        PictureStore(folder)
