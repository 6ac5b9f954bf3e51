import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

PROJECT_ROOT = Path(__file__).resolve().parents[2]

# Tests state what the CPU computes, to the bit; those in the folder cuda name their devices.
os.environ.setdefault("GHOSTSR_DEVICE", "cpu")


class _Folder(type(Path())):  # type: ignore[misc]
    """A folder of files that not every machine has; a test that asks for one in vain is skipped."""

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        path: Path = super().__truediv__(name)
        if not path.exists():
            pytest.skip(f"no {path} (GHOSTSR_DATA names the folder of research data)")
        return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real pictures, pretrained weights and golden values."""
    folder = Path(os.environ.get("GHOSTSR_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no research data at {folder} (set GHOSTSR_DATA)")
    return _Folder(folder)


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The folder of small inputs that once went wrong."""
    data = Path(os.environ.get("GHOSTSR_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    folder = data.parent / "cases"
    if not (folder / "pictures").is_dir():
        pytest.skip(f"no small inputs at {folder} (set GHOSTSR_DATA to the folder beside it)")
    return _Folder(folder)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small operators are slower on more threads, and some bits depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def force_path() -> Iterator[Callable[[str], None]]:
    """Forces how the CPU computes convolutions, as ``ops.convolution_path`` does."""
    from ghostsr_ext import ops

    with ExitStack() as forced:
        yield lambda path: forced.enter_context(ops.convolution_path(path))
