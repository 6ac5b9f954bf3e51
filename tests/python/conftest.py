import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

PROJECT_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real pictures, pretrained weights and golden values."""
    folder = Path(os.environ.get("GHOSTSR_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no research data at {folder} (set GHOSTSR_DATA)")
    return folder


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The folder of small inputs that once went wrong."""
    data = Path(os.environ.get("GHOSTSR_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    folder = data.parent / "cases"
    if not (folder / "pictures").is_dir():
        pytest.skip(f"no small inputs at {folder} (set GHOSTSR_DATA to the folder beside it)")
    return folder


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
