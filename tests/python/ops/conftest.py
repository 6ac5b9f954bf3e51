import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Run all tests of operators on one thread."""
