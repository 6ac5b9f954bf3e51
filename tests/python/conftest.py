import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import real_files
import torch

# Tests state what the CPU computes, to the bit; those in the folder cuda name their devices.
os.environ.setdefault("GHOSTSR_DEVICE", "cpu")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real pictures, pretrained weights and golden values."""
    if not (real_files.DATA / "weights").is_dir():
        pytest.skip(f"no research data at {real_files.DATA} (set GHOSTSR_DATA)")
    return real_files.DescribedFolder(real_files.DATA)


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The folder of small inputs that once went wrong."""
    if not (real_files.CASES / "pictures").is_dir():
        pytest.skip(
            f"no small inputs at {real_files.CASES} (set GHOSTSR_DATA to the folder beside it)"
        )
    return real_files.DescribedFolder(real_files.CASES)


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
