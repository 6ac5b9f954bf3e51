import subprocess
import sys

import pytest
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.training.run_folder import RunFolder

HOLDER = """
import sys
from pathlib import Path
from ghostsr_ext.training.run_folder import RunFolder

with RunFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_use_names_who_uses_it(tmp_path, holder):
    with (
        pytest.raises(InputError, match=f"in use by process {holder.pid} on"),
        RunFolder(tmp_path).locked(),
    ):
        pytest.fail("the lock was given twice")


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()

    with RunFolder(tmp_path).locked():
        pass


def test_a_folder_can_be_locked_again(tmp_path):
    for _ in range(2):
        with RunFolder(tmp_path / "new").locked():
            pass


def test_a_new_run_does_not_start_in_the_folder_of_another(tmp_path):
    run = RunFolder(tmp_path)
    run.create()
    run.config.write_text("")

    with pytest.raises(InputError, match="holds a run already; pass --resume"):
        run.create()


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(InputError, match="holds no run to resume"):
        RunFolder(tmp_path).existing()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    run = RunFolder(tmp_path / "file" / "run")

    with pytest.raises(GhostsrError, match=r"run folder .*run: cannot be"), run.locked():
        pytest.fail("a folder inside of a file")


def test_halves_of_files_are_removed_and_nothing_else(tmp_path):
    run = RunFolder(tmp_path)
    run.create()
    halves = (
        ".best.abcd_123.safetensors",
        ".initial.abcdefgh.safetensors",
        ".config.abcdefgh.toml",
        "checkpoints/.step_00000001.abcdefgh.pt",
    )
    others = (".lock", "best.safetensors", ".taplo.toml", ".mine.safetensors", ".config.old.toml")
    for name in (*halves, *others):
        (tmp_path / name).write_text("")

    run.remove_leftovers()

    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == set(others)
    assert not list(run.checkpoints.iterdir())


def test_a_new_run_removes_what_one_left_that_was_killed_at_its_start(tmp_path):
    run = RunFolder(tmp_path)
    run.create()
    (tmp_path / ".initial.abcdefgh.safetensors").write_text("")
    (tmp_path / ".config.abcdefgh.toml").write_text("")

    run.create()

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
