import json
import os
import pickle
import struct
import time
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
from published_networks import CarnPytorch, EdsrPytorch
from safetensors.torch import load_file, save_file

# What once took minutes; a refusal that reads no more than the file takes far less than this.
AT_ONCE = 10.0


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


class Allocates:
    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (self.size,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_takes_memory_at_will_is_refused_unread(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"buffer": Allocates(20)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"holds a Python object \(builtins\.bytearray\)"):
        load_model(path)


def test_nested_tensors_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "nested.pth"
    # Its prototype warns of changes to come.
    with pytest.warns(UserWarning, match="nested tensors"):
        state["head.0.bias"] = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    torch.save(state, path)
    with pytest.raises(InputError, match=r"head\.0\.bias is sparse, quantised, complex, nested"):
        load_model(path)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("everywhere", [True, False])
def test_whole_numbers_in_the_place_of_weights_are_refused(
    kind: torch.dtype, everywhere: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    state = CarnPytorch([2], features=4).state_dict()
    for name in state if everywhere else ("sub_mean.shifter.weight", "add_mean.shifter.bias"):
        state[name] = state[name].to(kind)
    save_file(state, path)
    with pytest.raises(InputError, match=r"floating-point numbers|float32 is needed"):
        load_model(path)


def described(path: Path, change: Any) -> Path:
    """Write a small converted network, its description changed."""
    from ghostsr_ext.conversion import convert

    save_model(convert(EDSR(scale=2, blocks=1, features=4))[0], path)
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = json.loads(file.read(length))["__metadata__"]["ghostsr"]
    description = json.loads(text)
    replaced = change(description)
    text = replaced if isinstance(replaced, str) else json.dumps(description)
    save_file(load_file(path), path, metadata={"ghostsr": text})
    return path


def model(**hyperparameters: Any) -> Any:
    return lambda description: description["model"].update(hyperparameters)


def layer(block: str, name: str = "body.0.conv1", **settings: Any) -> Any:
    return lambda description: description.setdefault(block, {}).update({name: settings})


GHOST = {
    "ghost_ratio": 0.5,
    "intrinsic_channels": 2,
    "max_shift": 1,
    "shift_scope": "channel",
    "affine": False,
    "frozen": True,
}


def ghosts(**settings: Any) -> Any:
    return layer("ghost_layers", **{**GHOST, **settings})


def many_ghosts(description: dict[str, Any]) -> None:
    description["model"] |= {"blocks": 1024, "features": 4096}
    description["ghost_layers"] = {f"body.{i}.conv1": GHOST for i in range(1024)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            model(architecture="rdn", blocks=256, layers=256, growth=4, residual_scale=None),
            "argument 'residual_scale': unknown",
        ),
        (model(blocks=1024), "far more tensors than the file's"),
        (model(scale=[*range(2, 20_000)]), "hyperparameter scale: found a list of 19998"),
        (many_ghosts, r"lacks body\.1\.conv1\.weight"),
        (model(features=-4), "features: got -4, allowed are whole numbers from 1"),
        (model(features=2**62), "hyperparameter features"),
        (model(residual_scale=10**400), "hyperparameter residual_scale: found 1000"),
        (model(mean={"a": {"b": {"c": {"d": {"e": 1}}}}}), "hyperparameter mean"),
        (model(mean=5), "bad hyperparameter"),
        (model(tail="x" * 10**6), "hyperparameter tail"),
        (layer("narrowed_layers", in_channels=-2, out_channels=4), "in_channels: found -2"),
        (layer("narrowed_layers", in_channels=2**62, out_channels=4), "in_channels: found 4611"),
        (layer("narrowed_layers", name="head", in_channels=3, out_channels=9), "found .* channels"),
        (layer("narrowed_layers", in_channels=True, out_channels=4), "in_channels: found True"),
        (layer("depthwise_layers", intrinsic_channels=2, size=3), r"lacks .*\.primary\.weight"),
        (layer("depthwise_layers", intrinsic_channels=2), "lacks size"),
        (ghosts(ghost_ratio=-1.0), "ghost_ratio: found -1"),
        (ghosts(intrinsic_channels=[]), "intrinsic_channels: found a list of 0"),
        (ghosts(max_shift=10**30), "max_shift: found 1000"),
        (ghosts(shift_scope="all"), "shift_scope: found 'all', allowed are channel and layer"),
        (ghosts(affine="yes"), "affine: found 'yes', allowed are true and false"),
        (layer("ghost_layers", "\x1b[31mred\n"), r"ghost_layers \\x1b\[31mred\\n: lacks"),
        (lambda _: "[" * 10**6, "its metadata is no JSON"),
        (lambda _: '{"format_version": 1, "model": {"scale": 1e999}}', "1e999 is too large"),
        (lambda _: '{"format_version": NaN}', "NaN is no JSON number"),
        (lambda _: '{"format_version": ' + "1" * 5000 + "}", "its metadata is no JSON"),
        (lambda _: '{"format_version": ' + "1" * 4000 + "}", "a newer release may read it"),
    ],
)
def test_descriptions_of_what_cannot_be_are_refused_at_once(
    change: Any, message: str, tmp_path: Path
) -> None:
    path = described(tmp_path / "model.safetensors", change)
    began = time.perf_counter()
    with pytest.raises(InputError, match=message) as error:
        load_model(path)
    assert time.perf_counter() - began < AT_ONCE
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 1000


def test_a_network_of_many_layers_without_tensors_is_refused_at_once(tmp_path: Path) -> None:
    description = {
        "format_version": 1,
        "model": {"architecture": "rdn", "blocks": 1024, "layers": 256, "growth": 4, "features": 4},
    }
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata={"ghostsr": json.dumps(description)})
    began = time.perf_counter()
    with pytest.raises(InputError, match="far more tensors than the file's 1"):
        load_model(path)
    assert time.perf_counter() - began < AT_ONCE


def test_files_of_too_many_tensors_are_refused(tmp_path: Path) -> None:
    many = {str(number): torch.zeros(0) for number in range(20_001)}
    save_file(many, tmp_path / "many.safetensors")
    torch.save(many, tmp_path / "many.pth")
    for name in ("many.safetensors", "many.pth"):
        with pytest.raises(InputError, match="has 20001 tensors; at most 20000 are read"):
            load_model(tmp_path / name)


def test_names_from_a_file_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = EdsrPytorch(2).state_dict()
    state["\x1b]0;title\x07" + 10**5 * "x"] = torch.zeros(1)
    save_file(state, path)
    with pytest.raises(InputError, match=r"\\x1b\]0;title\\x07x") as error:
        load_model(path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000
