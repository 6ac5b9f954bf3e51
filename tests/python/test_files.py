import errno
import os
import re
import stat
import subprocess
import sys

import pytest
from ghostsr_ext import files
from ghostsr_ext.errors import InputError
from ghostsr_ext.files import atomic_write, remove_leftovers


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_succeeds(tmp_path):
    target = tmp_path / "picture.png"

    with atomic_write(target) as temporary:
        temporary.write_bytes(b"pixels")
        assert not target.exists()

    assert target.read_bytes() == b"pixels"
    assert _names(tmp_path) == ["picture.png"]


def test_writers_that_go_by_the_suffix_find_it_beside_the_target(tmp_path):
    with atomic_write(tmp_path / "model.tar.safetensors") as temporary:
        assert temporary.suffix == ".safetensors"
        assert temporary.parent == tmp_path


def _fail_half_way(target, error=RuntimeError, **options):
    with atomic_write(target, **options) as temporary:
        temporary.write_bytes(b"half")
        raise error


def _must_not_run(target, **options):
    with atomic_write(target, **options):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error):
        _fail_half_way(tmp_path / "a.png", error)

    assert _names(tmp_path) == []


def test_a_failure_leaves_the_old_file_as_it_was(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    with pytest.raises(RuntimeError):
        _fail_half_way(target, overwrite=True)

    assert target.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.png"]


def test_a_writer_that_removes_its_file_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.png") as temporary:
        temporary.unlink()

    assert _names(tmp_path) == []


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    with pytest.raises(InputError, match=r"a\.png: exists already.*overwrite"):
        _must_not_run(target)
    assert target.read_bytes() == b"old"

    with atomic_write(target, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert _names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_output(tmp_path, overwrite):
    with pytest.raises(InputError, match="is a folder; name a file"):
        _must_not_run(tmp_path, overwrite=overwrite)


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_folder_that_is_none_is_named(tmp_path, parent):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(InputError, match=rf"{parent}.a\.png: cannot be written"):
        _must_not_run(tmp_path / parent / "a.png")


@pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_permissions_are_those_of_an_ordinary_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.png") as temporary:
            temporary.write_bytes(b"pixels")
        mode = stat.S_IMODE((tmp_path / "a.png").stat().st_mode)
    finally:
        after = os.umask(before)

    assert mode == 0o666 & ~umask
    assert after == umask


def test_a_path_given_as_text_will_do(tmp_path):
    with atomic_write(str(tmp_path / "a.txt")) as temporary:
        temporary.write_text("text")

    assert (tmp_path / "a.txt").read_text() == "text"


LEFT = re.compile(r"\.a\.[a-z0-9_]{8}\.png")

KILLED_WHILE_WRITING = """
import os, signal, sys
from ghostsr_ext.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

KILLED_BEFORE_LOCKING = """
import os, signal, sys
from ghostsr_ext import files
files._lock = lambda _: os.kill(os.getpid(), signal.SIGKILL)
with files.atomic_write(sys.argv[1]):
    pass
"""


@pytest.mark.skipif(os.name != "posix", reason="locks are those of POSIX")
@pytest.mark.parametrize("program", [KILLED_WHILE_WRITING, KILLED_BEFORE_LOCKING])
def test_what_a_killed_process_has_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path, program
):
    target = tmp_path / "a.png"
    other = tmp_path / ".a.mine.png"
    other.write_bytes(b"kept")
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"whole")
        subprocess.run([sys.executable, "-c", program, target], check=False)
        (left,) = (path for path in tmp_path.iterdir() if path not in (temporary, other))
        assert LEFT.fullmatch(left.name)

        remove_leftovers([target, tmp_path / "nowhere" / "a.png"])

        assert set(tmp_path.iterdir()) == {temporary, other}
    assert target.read_bytes() == b"whole"


@pytest.mark.skipif(os.name != "posix", reason="locks are those of POSIX")
@pytest.mark.parametrize("when", ["before the lock", "at the lock"])
def test_a_writer_begins_again_where_its_file_was_taken_for_a_leftover(tmp_path, monkeypatch, when):
    target = tmp_path / "a.png"
    locks = []

    def lock(handle):
        first = not locks
        locks.append(handle)
        if first and when == "before the lock":
            remove_leftovers([target])
        return False if first and when == "at the lock" else lock_of_files(handle)

    lock_of_files = files._lock
    monkeypatch.setattr(files, "_lock", lock)
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"whole")

    assert len(locks) > 1
    assert target.read_bytes() == b"whole"


def test_leftovers_of_other_outputs_stay(tmp_path):
    left = tmp_path / ".a.b.12345678.png"
    left.write_bytes(b"half")

    remove_leftovers([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "a.b.jpg"])
    assert left.exists()
    remove_leftovers([tmp_path / "a.b.png"])
    assert not left.exists()


@pytest.mark.parametrize("name", ["a", "a.b.c", ".hidden", "a.new"])
def test_leftovers_of_any_name_are_known(tmp_path, name):
    with atomic_write(tmp_path / name) as temporary:
        left = temporary
    left.write_bytes(b"half")

    remove_leftovers([tmp_path / name])

    assert _names(tmp_path) == [name]


def test_of_two_writers_the_faster_one_is_not_overwritten(tmp_path):
    target = tmp_path / "a.png"

    def write_slowly():
        with atomic_write(target) as temporary:
            temporary.write_bytes(b"slow")
            target.write_bytes(b"fast")

    with pytest.raises(InputError, match="exists already"):
        write_slowly()

    assert target.read_bytes() == b"fast"
    assert _names(tmp_path) == ["a.png"]


def test_without_links_between_files_it_is_renamed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    with atomic_write(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"pixels")

    assert (tmp_path / "a.png").read_bytes() == b"pixels"
    assert _names(tmp_path) == ["a.png"]


def test_a_full_disk_is_told(tmp_path):
    def fill(target):
        with atomic_write(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"a\.png: cannot be written \(No space left"):
        fill(tmp_path / "a.png")
    assert _names(tmp_path) == []
