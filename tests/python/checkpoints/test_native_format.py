import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ghost_in_place import put_ghost_layer
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import CARN, EDSR, RDN, VDSR, RRDBNet, SRModel, SRVGGNetCompact
from ghostsr_ext.nn import GhostConv2d
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn


def small_edsr() -> EDSR:
    return EDSR(scale=2, blocks=2, features=8, residual_scale=0.5).eval()


def description(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["ghostsr"])


def rewrite(path: Path, change: Any) -> None:
    """Write the file again with what ``change(tensors, description)`` makes of it."""
    tensors, content = load_file(path), description(path)
    change(tensors, content)
    save_file(tensors, path, metadata={"ghostsr": json.dumps(content)})


@pytest.fixture
def dense_file(tmp_path: Path) -> Path:
    path = tmp_path / "dense.safetensors"
    save_model(small_edsr(), path)
    return path


@pytest.fixture
def ghost_file(tmp_path: Path) -> Path:
    path = tmp_path / "ghost.safetensors"
    model = small_edsr()
    put_ghost_layer(model, "body.0.conv1").freeze_shifts()
    save_model(model, path)
    return path


@pytest.mark.parametrize(
    "model",
    [
        small_edsr(),
        EDSR(scale=3, blocks=1, features=4, mean=None, tail="direct"),
        RDN(scale=2, blocks=2, layers=2, growth=4, features=6, tail="nearest"),
        CARN(scale=(2, 4), features=8, groups=4, recursive=True),
        RRDBNet(scale=1, blocks=1, features=6, growth=4),
        SRVGGNetCompact(scale=3, layers=2, features=6),
        VDSR(layers=4, features=4, bias=False),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_network_returns_from_its_file(model: SRModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    twin = load_model(path)
    assert type(twin) is type(model)
    assert twin.config == model.config
    image = torch.rand(1, model.channels, 6, 5) * model.value_range
    for scale in model.scales:
        assert torch.equal(twin(image, scale), model.eval()(image, scale))


def test_a_file_with_the_former_name_of_a_hyperparameter_is_read(tmp_path: Path) -> None:
    def rename(tensors: dict[str, Any], content: dict[str, Any]) -> None:
        content["model"]["colour"] = content["model"].pop("color")

    path = tmp_path / "model.safetensors"
    save_model(VDSR(layers=3, features=4, color="rgb"), path)
    rewrite(path, rename)
    assert load_model(path).color == "rgb"


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ghost_ratio": 0.75, "max_shift": 2},
        {"shift_scope": "layer"},
        {"affine": True},
        {"ghost_ratio": 0.3},
        {"ghost_ratio": 0.0},
    ],
)
def test_ghost_layers_return_as_they_were(options: dict, frozen: bool, tmp_path: Path) -> None:
    model = small_edsr()
    for name in ("body.0.conv1", "body.1.conv2"):
        layer = put_ghost_layer(model, name, **options)
        if layer.gain is not None:
            nn.init.normal_(layer.gain)
        if frozen:
            layer.freeze_shifts()
    path = tmp_path / "ghost.safetensors"
    save_model(model, path)
    twin = load_model(path)
    layer, twin_layer = (m.get_submodule("body.0.conv1") for m in (model, twin))
    assert isinstance(twin_layer, GhostConv2d)
    for attribute in (
        "intrinsic_channels",
        "ghost_ratio",
        "max_shift",
        "shift_scope",
        "affine",
        "activation",
        "residual_scale",
    ):
        assert getattr(twin_layer, attribute) == getattr(layer, attribute)
    assert (twin_layer.logits is None) == frozen
    image = 255 * torch.rand(1, 3, 7, 6)
    assert torch.equal(twin(image), model(image))


def test_parameters_of_a_loaded_network_can_be_trained(ghost_file: Path) -> None:
    model = load_model(ghost_file)
    assert not model.training
    model.train()(255 * torch.rand(1, 3, 4, 4)).mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_metadata_travels_with_the_network(tmp_path: Path) -> None:
    model = small_edsr()
    path = tmp_path / "model.safetensors"
    blocks = {"report": {"psnr": 31.5}, "training": {"seed": 1, "data": ["T91"]}}
    save_model(model, path, metadata=blocks)
    twin = load_model(path)
    assert twin.metadata == blocks
    save_model(twin, path, overwrite=True)
    assert load_model(path).metadata == blocks


def test_metadata_block_is_as_documented(ghost_file: Path) -> None:
    content = description(ghost_file)
    assert content["format_version"] == 1
    assert content["model"]["architecture"] == "edsr"
    assert content["ghost_layers"] == {
        "body.0.conv1": {
            "ghost_ratio": 0.5,
            "intrinsic_channels": 4,
            "max_shift": 1,
            "shift_scope": "channel",
            "affine": False,
            "frozen": True,
        }
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_small_and_read_as_float32(
    dtype: torch.dtype, dense_file: Path, tmp_path: Path
) -> None:
    model = load_model(dense_file)
    path = tmp_path / "half.safetensors"
    save_model(model, path, dtype=dtype)
    assert path.stat().st_size < 0.6 * dense_file.stat().st_size
    twin = load_model(path)
    for name, tensor in twin.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].to(dtype).float())


def test_channels_last_networks_are_saved_alike(dense_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "channels_last.safetensors"
    save_model(load_model(dense_file).to(memory_format=torch.channels_last), path)
    assert load_file(path).keys() == load_file(dense_file).keys()
    assert all(torch.equal(load_file(path)[k], v) for k, v in load_file(dense_file).items())


def test_loaded_weights_do_not_change_with_the_file(dense_file: Path) -> None:
    model = load_model(dense_file)
    before = model.head.weight.clone()
    dense_file.write_bytes(bytes(dense_file.stat().st_size))
    assert torch.equal(model.head.weight, before)


def test_an_existing_file_is_kept_unless_told_otherwise(dense_file: Path) -> None:
    before = dense_file.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        save_model(small_edsr(), dense_file)
    assert dense_file.read_bytes() == before
    save_model(small_edsr(), dense_file, overwrite=True)
    assert dense_file.read_bytes() != before


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="metadata: cannot be written as JSON"):
        save_model(small_edsr(), tmp_path / "a.safetensors", metadata={"report": object()})
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        save_model(small_edsr(), tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def break_version(tensors: dict, content: dict) -> None:
    content["format_version"] = 2


def break_architecture(tensors: dict, content: dict) -> None:
    content["model"]["architecture"] = "esrgan"


def break_hyperparameter(tensors: dict, content: dict) -> None:
    content["model"]["heads"] = 4


def grow_blocks(tensors: dict, content: dict) -> None:
    content["model"]["blocks"] = 10**9


def grow_features(tensors: dict, content: dict) -> None:
    content["model"]["features"] = 4096


def drop_config(tensors: dict, content: dict) -> None:
    del content["model"]


def drop_tensor(tensors: dict, content: dict) -> None:
    del tensors["body.1.conv1.bias"]


def add_tensor(tensors: dict, content: dict) -> None:
    tensors["body.7.conv1.bias"] = torch.zeros(8)


def break_ghost_name(tensors: dict, content: dict) -> None:
    content["ghost_layers"]["body.9.conv1"] = content["ghost_layers"]["body.0.conv1"]


def break_ghost_target(tensors: dict, content: dict) -> None:
    content["ghost_layers"]["body"] = content["ghost_layers"].pop("body.0.conv1")


def break_ghost_ratio(tensors: dict, content: dict) -> None:
    content["ghost_layers"]["body.0.conv1"]["ghost_ratio"] = 0.75


def break_max_shift(tensors: dict, content: dict) -> None:
    content["ghost_layers"]["body.0.conv1"]["max_shift"] = 99


def drop_ghost_setting(tensors: dict, content: dict) -> None:
    del content["ghost_layers"]["body.0.conv1"]["frozen"]


def break_source(tensors: dict, content: dict) -> None:
    tensors["body.0.conv1.source"][0] = 4


def break_shift(tensors: dict, content: dict) -> None:
    tensors["body.0.conv1.shift"][0, 0] = -2


def break_order(tensors: dict, content: dict) -> None:
    tensors["body.0.conv1.order"][0] = tensors["body.0.conv1.order"][1]


def float_order(tensors: dict, content: dict) -> None:
    tensors["body.0.conv1.order"] = tensors["body.0.conv1.order"].float()


def nan_weight(tensors: dict, content: dict) -> None:
    tensors["head.weight"][0, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_version, "format version 2; version 1 is read here"),
        (break_architecture, "architecture 'esrgan': unknown"),
        (break_hyperparameter, "EDSR argument 'heads': unknown"),
        (grow_blocks, "blocks: got 1000000000"),
        (grow_features, "4 intrinsic channels do not fit ghost_ratio 0.5 of 4096 channels"),
        (drop_config, "has no object 'model'"),
        (drop_tensor, r"lacks body\.1\.conv1\.bias"),
        (add_tensor, r"has unknown tensors body\.7\.conv1\.bias"),
        (break_ghost_name, "9"),
        (break_ghost_target, r"lacks body\.weight"),
        (break_ghost_ratio, "4 intrinsic channels do not fit ghost_ratio 0.75 of 8 channels"),
        (break_max_shift, "max_shift: found 99, allowed are whole numbers from 0 to 7"),
        (drop_ghost_setting, "lacks frozen"),
        (break_source, r"body\.0\.conv1\.source: "),
        (break_shift, r"body\.0\.conv1\.shift: "),
        (break_order, r"body\.0\.conv1\.order: .*permutation"),
        (float_order, r"body\.0\.conv1\.order has type torch\.float32; torch\.int64 is needed"),
        (nan_weight, r"tensor head\.weight has values that are NaN or infinite"),
    ],
)
def test_a_damaged_file_is_refused_by_name(change: Any, message: str, ghost_file: Path) -> None:
    rewrite(ghost_file, change)
    with pytest.raises(InputError, match=message) as error:
        load_model(ghost_file)
    assert str(ghost_file) in str(error.value)


def test_a_description_wider_than_its_tensors_is_refused(dense_file: Path) -> None:
    rewrite(dense_file, grow_features)
    with pytest.raises(InputError, match=r"tensor head\.weight has shape \[8, 3, 3, 3\]; \[4096"):
        load_model(dense_file)


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"'])
def test_metadata_that_is_no_json_object_is_refused(text: str, dense_file: Path) -> None:
    save_file(load_file(dense_file), dense_file, metadata={"ghostsr": text})
    with pytest.raises(InputError, match="metadata is no JSON"):
        load_model(dense_file)


def test_hyperparameters_of_the_own_format_are_not_overridden(dense_file: Path) -> None:
    with pytest.raises(InputError, match="cannot be overridden"):
        load_model(dense_file, overrides={"value_range": 1.0})
