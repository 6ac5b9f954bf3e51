import os
import pickle
import struct
import zipfile
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import EDSR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_networks import EdsrPytorch


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return EdsrPytorch(2).state_dict()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(
    zipped: bool, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path, marker = tmp_path / "model.pth", tmp_path / "ran"
    torch.save(
        {"state_dict": state, "extra": RunsCode(marker)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(InputError, match=r"mkdir.*refused.*model\.state_dict\(\)") as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert not marker.exists()


def test_a_pickled_module_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(EdsrPytorch(2), path)
    with pytest.raises(
        InputError, match=r"published_networks\.EdsrPytorch.*torch\.save\(model\.state_dict"
    ):
        load_model(path)


def test_objects_beside_the_weights_are_refused_with_advice(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": state, "args": Namespace(scale=2)}, path)
    with pytest.raises(InputError, match=r"argparse\.Namespace.*refused"):
        load_model(path)


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    path, marker = tmp_path / "model.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps(RunsCode(marker)))
    with pytest.raises(InputError, match=str(path)):
        load_model(path)
    assert not marker.exists()


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/constants.pkl", b"\x80\x02).")
        archive.writestr("script/data.pkl", b"\x80\x02}.")
        archive.writestr("script/code/x.py", "")
        archive.writestr("script/version", "3\n")
    with pytest.raises(InputError, match=str(path)):
        load_model(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.7, 0.99])
def test_a_truncated_torch_file_is_refused(
    zipped: bool, part: float, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=r"model\.pth.*(truncated|no checkpoint)"):
        load_model(path)


@pytest.mark.parametrize("part", [0.001, 0.3, 0.7, 0.99])
def test_a_truncated_safetensors_file_is_refused(part: float, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(EDSR(blocks=1, features=4), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=r"model\.safetensors.*(no whole|no checkpoint)"):
        load_model(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"not a checkpoint at all",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"\x80\x02" + bytes(100),
        struct.pack("<Q", 2**63) + b"{" + bytes(100),
        struct.pack("<Q", 10) + b"{}        ",
        bytes(1000),
    ],
    ids=range(9),
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pth"):
        load_model(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), kind=st.sampled_from(["zip", "legacy", "safetensors"]))
def test_flipped_bytes_give_a_network_or_one_clear_error(
    data: st.DataObject, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pth")
    if kind == "safetensors":
        save_model(EDSR(blocks=1, features=4), path, overwrite=True)
    else:
        torch.save(
            EdsrPytorch(2, features=4, blocks=1).state_dict(),
            path,
            _use_new_zipfile_serialization=kind == "zip",
        )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 3000)))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content)
    # Any other exception, or a crash, fails the test.
    with suppress(InputError):
        assert load_model(path)(torch.rand(1, 3, 4, 4)).shape == (1, 3, 8, 8)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pth: does not exist"):
        load_model(tmp_path / "none.pth")
    with pytest.raises(InputError, match="is not a file"):
        load_model(tmp_path)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100) + b"{")
        file.truncate(3 * 1024**3)
    with pytest.raises(InputError, match="has 3221225472 bytes; at most 2147483648 are read"):
        load_model(path)


def test_tensors_that_pose_as_huge_are_refused(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "huge.pth"
    state["head.0.weight"] = torch.zeros(1).expand(100_000, 100_000, 3, 3)
    torch.save(state, path)
    with pytest.raises(InputError, match=r"claim \d+ bytes, but the file has only"):
        load_model(path)


def test_compressed_archives_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path, packed = tmp_path / "model.pth", tmp_path / "packed.pth"
    state["head.0.weight"] = torch.zeros(10**6)
    torch.save(state, path)
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(InputError, match="compressed entries"):
        load_model(packed)


def test_archives_of_an_unknown_version_are_refused(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    # Byte 6 of an entry in the central directory is the version needed to extract it.
    content[content.index(b"PK\x01\x02") + 6] = 151
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged archive \(zip file version 15\.1\)"):
        load_model(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(
    value: float, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "nan.pth"
    state["body.1.body.0.bias"][3] = value
    torch.save(state, path)
    with pytest.raises(InputError, match=r"body\.1\.body\.0\.bias has values that are NaN"):
        load_model(path)


def test_sparse_tensors_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "sparse.pth"
    state["head.0.bias"] = state["head.0.bias"].to_sparse()
    torch.save(state, path)
    with pytest.raises(InputError, match=r"head\.0\.bias is sparse"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list; a state dict is needed"),
        (torch.zeros(1), "holds a Tensor; a state dict is needed"),
        ({}, "it has no tensors"),
        ({"epoch": 3, "loss": 0.1}, "not tensors: epoch, loss"),
        ({"state_dict": {"epoch": 3}}, "not tensors: epoch"),
    ],
)
def test_files_without_a_state_dict_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(InputError, match=message):
        load_model(path)
