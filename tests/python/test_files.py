import os
import stat

import pytest
from ghostsr_ext.errors import InputError
from ghostsr_ext.files import atomic_write


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
