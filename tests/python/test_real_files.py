"""What tests say of real files that a machine lacks."""

from pathlib import Path

import pytest
import real_files
from real_files import DescribedFolder

README = """Real files.

| `Set5/HR`, `Set5/LR/X{2,3}` | pictures |
| `tables/psnr_*.npz` | golden values |
| weights/network.pth | a network |

Others to make in a test: `{'model': state}`, any `*`.
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(real_files, "DATA", tmp_path)
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    for name in ("Set5/HR", "Set5/LR", "tables", "weights"):
        (tmp_path / name).mkdir(parents=True)
    return DescribedFolder(tmp_path)


def test_a_file_that_is_there_is_found(folder):
    Path(folder, "Set5/HR/bird.png").touch()
    assert (folder / "Set5" / "HR" / "bird.png").is_file()


@pytest.mark.parametrize("name", ["weights/network.pth", "tables/psnr_x2.npz", "Set5/LR/X3/b.png"])
def test_a_test_of_a_file_that_this_machine_lacks_is_skipped(folder, name):
    with pytest.raises(pytest.skip.Exception, match="GHOSTSR_DATA"):
        folder / name


@pytest.mark.parametrize("name", ["weights/netwrok.pth", "Set5/HR/brid.png", "wieghts/network.pth"])
def test_a_test_of_a_file_that_no_machine_has_fails(folder, name):
    # A skip that is not expected here would skip this test too.
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="does not name it"):
        folder / name


def test_the_names_are_those_of_the_nearest_description(folder):
    Path(folder, "weights/README.md").write_text("`other.pth`", encoding="utf-8")
    with pytest.raises(pytest.skip.Exception):
        folder / "weights" / "other.pth"
    with pytest.raises(pytest.fail.Exception):
        folder / "weights" / "network.pth"


def test_without_a_description_any_missing_file_is_skipped(folder):
    Path(folder, "README.md").unlink()
    with pytest.raises(pytest.skip.Exception):
        folder / "weights" / "netwrok.pth"
