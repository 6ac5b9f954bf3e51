import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.torchrun import Place, place


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("rank", ["3", "x", ""])
def test_what_was_left_set_by_others_does_not_count(monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert place() == Place(0, 1, 0, 0)


def test_torchruns_own_variables_count(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert place() == Place(5, 8, 1, 2)


@pytest.mark.parametrize(
    ("rank", "size"), [("x", "2"), ("-1", "2"), ("2", "2"), ("1" * 5000, "2"), ("0", "0")]
)
def test_torchruns_variables_that_make_no_sense_are_one_error(monkeypatch, rank, size):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(InputError, match=r"environment variable (RANK|WORLD_SIZE): found"):
        place()
