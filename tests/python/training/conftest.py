import pytest
from ghostsr_ext.imaging import write_image
from ghostsr_ext.training import config_from_values
from run_cases import smooth_picture


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Run all tests of training on one thread."""


@pytest.fixture
def pictures(tmp_path):
    """Four pictures of different sizes, all multiples of 12."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, size in enumerate(((48, 60), (60, 48), (72, 60), (48, 48))):
        write_image(folder / f"{seed}.png", smooth_picture(seed, *size))
    return folder


@pytest.fixture
def make_config(pictures, tmp_path):
    """Returns a function that makes the configuration of a small run; its argument adds tables."""

    def make(**tables):
        values = {
            "model": {
                "preset": "edsr_baseline",
                "arguments": {"scale": 2, "blocks": 1, "features": 4, "value_range": 1.0},
            },
            "conversion": {"method": "kmeans"},
            "data": {"train": [str(pictures)], "patch": 8, "cache": str(tmp_path / "cache")},
            "training": {"steps": 8, "batch_size": 4, "lr": 1e-3, "threads": 1, "device": "cpu"},
            "checkpoints": {"every": 4},
            "logging": {"every": 1},
        }
        for table, keys in tables.items():
            values.setdefault(table, {}).update(keys)
        return config_from_values(values, "test")

    return make
