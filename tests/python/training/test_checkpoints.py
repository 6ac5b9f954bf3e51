import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.training.checkpoints import (
    list_checkpoints,
    random_states,
    read_newest_checkpoint,
    set_random_states,
    write_checkpoint,
)


def test_what_is_written_is_read(tmp_path):
    state = {"step": 3, "weight": torch.randn(2), "text": "a", "list": [1, None, {"b": 0.5}]}

    write_checkpoint(tmp_path, state, keep=1)

    read = read_newest_checkpoint(tmp_path)
    assert torch.equal(read.pop("weight"), state.pop("weight"))
    assert read == {"format_version": 1, **state}


def test_the_oldest_are_removed(tmp_path):
    for step in (1, 2, 30, 400):
        write_checkpoint(tmp_path, {"step": step}, keep=2)

    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step_00000030.pt",
        "step_00000400.pt",
    ]


def test_a_folder_without_checkpoints_has_no_newest(tmp_path):
    assert read_newest_checkpoint(tmp_path) is None
    assert read_newest_checkpoint(tmp_path / "none") is None


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    write_checkpoint(tmp_path, {"step": 1}, keep=2)
    newest = write_checkpoint(tmp_path, {"step": 2}, keep=2)
    newest.write_bytes(newest.read_bytes()[:-100])

    with pytest.warns(UserWarning, match=r"step_00000002\.pt: cannot be read"):
        assert read_newest_checkpoint(tmp_path)["step"] == 1


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path):
    write_checkpoint(tmp_path, {"step": 1}, keep=1).write_bytes(b"")

    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(InputError, match="none of the 1 checkpoints can be read"),
    ):
        read_newest_checkpoint(tmp_path)


def test_a_later_format_is_refused_rather_than_skipped(tmp_path):
    path = write_checkpoint(tmp_path, {"step": 1}, keep=1)
    torch.save({"format_version": 99, "step": 1}, path)

    with pytest.raises(InputError, match="format version 99; this release reads 1"):
        read_newest_checkpoint(tmp_path)


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_nothing_in_a_checkpoint_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format_version": 1, "step": 1, "x": Payload()}, tmp_path / "step_00000001.pt")

    with pytest.warns(UserWarning, match="read"), pytest.raises(InputError):
        read_newest_checkpoint(tmp_path)

    assert not Path("executed").exists()


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, {"step": 1}, keep=1)

    def full(_self, _content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(GhostsrError, match=r"No space left on device.*--resume"):
            write_checkpoint(tmp_path, {"step": 2}, keep=1)

    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.pt"]
    assert read_newest_checkpoint(tmp_path)["step"] == 1


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from ghostsr_ext.training.checkpoints import write_checkpoint

folder = Path(sys.argv[1])
write_checkpoint(folder, {"step": 1}, keep=1)
write = Path.write_bytes
def half(self, content):
    write(self, bytes(content)[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = half
write_checkpoint(folder, {"step": 2, "weight": torch.zeros(1000)}, keep=1)
"""


def test_a_kill_in_the_middle_of_a_write_loses_nothing(tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], check=False)

    assert ended.returncode == -signal.SIGKILL
    assert read_newest_checkpoint(tmp_path)["step"] == 1


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random(), random.gauss(0, 1)]


def test_random_numbers_go_on_where_they_were(tmp_path):
    random.gauss(0, 1)
    np.random.standard_normal()
    write_checkpoint(tmp_path, {"step": 1, "random": random_states()}, keep=1)
    expected = draw()

    set_random_states(read_newest_checkpoint(tmp_path)["random"])

    assert draw() == expected
