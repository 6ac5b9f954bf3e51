"""Whatever a checkpoint file holds, the reader gives a network that runs, or one clear error."""

import io
import json
import struct
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from fuzz_settings import FUZZ
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import create_model
from hypothesis import given
from hypothesis import strategies as st
from published_networks import BasicsrEdsr, CarnPytorch, EdsrPytorch, Yjn870Rdn
from torch.optim.swa_utils import AveragedModel

# A file of this size is read in far less; a second or two more is the machine's.
AT_ONCE = 20.0
AWKWARD = (
    None,
    True,
    -1,
    0,
    1e300,
    -0.5,
    2**31,
    2**64,
    10**400,
    "",
    "\x1b[2J",
    [],
    {},
    [[]],
    {"": 0},
)


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _own(model: torch.nn.Module) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_model(model, path)
        return path.read_bytes()


@cache
def own_files() -> tuple[bytes, ...]:
    torch.manual_seed(0)
    small = {"scale": 2, "blocks": 1, "features": 4}
    edsr = create_model("edsr", **small)
    affine = convert(edsr, method="filters", affine=True)[0]
    pictures = torch.rand(4, 3, 12, 12) * 255
    return (
        _own(edsr),
        _own(create_model("rdn", **small, layers=1, growth=4)),
        _own(create_model("carn", scale=[2, 3], features=4)),
        _own(create_model("vdsr", layers=3, features=4)),
        _own(convert(edsr)[0]),
        _own(affine),
        _own(convert(edsr, ghost_op="depthwise")[0]),
        _own(convert(edsr, method="prune", calibration=pictures)[0]),
    )


@cache
def published_states() -> tuple[dict[str, Any], ...]:
    torch.manual_seed(0)
    edsr = EdsrPytorch(2, features=4, blocks=1)
    optimizer = torch.optim.Adam(edsr.parameters()).state_dict()
    return (
        edsr.state_dict(),
        BasicsrEdsr(2).state_dict(),
        CarnPytorch([2], features=4).state_dict(),
        Yjn870Rdn(2).state_dict(),
        {"model": edsr.state_dict(), "ema": AveragedModel(edsr).state_dict(), "opt": optimizer},
    )


@cache
def published_files() -> tuple[bytes, ...]:
    return tuple(
        _saved(state, _use_new_zipfile_serialization=zipped)
        for state in published_states()
        for zipped in (True, False)
    )


def check(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pth")
        path.write_bytes(content)
        began = time.perf_counter()
        try:
            model = load_model(path)
        except InputError as error:
            message = str(error)
            assert message.startswith(str(path))
            assert message.isprintable()
            assert len(message) <= 2000
        else:
            image = torch.rand(1, model.channels, 8, 8)
            with torch.no_grad():
                growth = 1 if model.input_upscaled else model.scale
                assert model(image).shape == (1, model.channels, 8 * growth, 8 * growth)
        assert time.perf_counter() - began < AT_ONCE


@st.composite
def mutated(draw: st.DrawFn, files: Callable[[], tuple[bytes, ...]]) -> bytes:
    content = bytearray(draw(st.sampled_from(files())))
    for _ in range(draw(st.integers(1, 4))):
        # Headers and instructions are at both ends; what lies between is numbers.
        near = draw(st.integers(0, min(len(content), 4000)))
        place = near if draw(st.booleans()) else len(content) - near
        kind = draw(st.sampled_from(["change", "insert", "remove", "repeat", "cut"]))
        if kind == "change":
            content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=9))
        elif kind == "remove":
            del content[place : place + draw(st.integers(1, 64))]
        elif kind == "repeat":
            content[place:place] = content[place : place + draw(st.integers(1, 512))]
        else:
            del content[place:]
    return bytes(content)


@FUZZ
@given(content=mutated(own_files))
def test_own_files_with_bytes_changed(content: bytes) -> None:
    check(content)


@FUZZ
@given(content=mutated(published_files))
def test_torchs_files_with_bytes_changed(content: bytes) -> None:
    check(content)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, entry in entries:
        found.append((*path, key))
        if isinstance(entry, dict | list):
            found += _places(entry, (*path, key))
    return found


@FUZZ
@given(data=st.data())
def test_own_files_with_their_description_changed(data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(own_files()))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["ghostsr"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(description)))
        inner = description
        for key in place[:-1]:
            inner = inner[key]
        numbers = st.integers(-2, 5000) | st.floats(allow_nan=False, allow_infinity=False)
        value = data.draw(st.sampled_from(AWKWARD) | numbers)
        if data.draw(st.booleans()) or not isinstance(inner, dict):
            inner[place[-1]] = value
        else:
            renamed = data.draw(
                st.sampled_from(["", "body", "head", "tail", "mean", "a.b", "\x1b"])
            )
            inner[renamed] = inner.pop(place[-1])
    header["__metadata__"]["ghostsr"] = json.dumps(description)
    text = json.dumps(header).encode()
    check(struct.pack("<Q", len(text)) + text + content[8 + length :])


def _tensors() -> st.SearchStrategy[torch.Tensor]:
    shapes = st.lists(st.integers(0, 5), max_size=5)
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64)
    kinds = (*kinds, torch.bool, torch.complex64, torch.float8_e4m3fn)
    special = [
        torch.zeros(3, 3).to_sparse(),
        torch.empty(3, device="meta"),
        torch.zeros(1).expand(10**9),
        torch.full((4, 4, 3, 3), torch.inf),
        torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        torch.nn.Parameter(torch.zeros(4)),
    ]
    drawn = st.builds(
        lambda shape, kind: torch.ones(shape).to(kind), shapes, st.sampled_from(kinds)
    )
    return drawn | st.sampled_from(special)


@FUZZ
@given(data=st.data())
def test_state_dicts_with_entries_changed(data: st.DataObject) -> None:
    state = dict(data.draw(st.sampled_from(published_states())))
    for _ in range(data.draw(st.integers(1, 4))):
        key = data.draw(st.sampled_from(sorted(state) or [""]))
        kind = data.draw(
            st.sampled_from(["replace", "rename", "remove", "wrap", "cycle", "prefix"])
        )
        if kind == "replace":
            state[key] = data.draw(_tensors() | st.sampled_from(AWKWARD))
        elif kind == "rename" and key in state:
            state[data.draw(st.text(max_size=30))] = state.pop(key)
        elif kind == "remove":
            state.pop(key, None)
        elif kind == "wrap":
            state = {data.draw(st.sampled_from(["model", "ema", "optimizer", "x", ""])): state}
        elif kind == "cycle":
            state["state_dict"] = state
        else:
            state = {f"module.{name}": value for name, value in state.items()}
    check(_saved(state, _use_new_zipfile_serialization=data.draw(st.booleans())))
