"""Networks that begin with tensors of another one."""

import pytest
import torch
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import create_model
from ghostsr_ext.training.network import build_dense

ARGUMENTS = {"scale": 2, "blocks": 1, "features": 4, "tail": "direct"}


def write_dense(path, preset="edsr_baseline", **arguments):
    torch.manual_seed(7)
    model = create_model(preset, **arguments)
    save_model(model, path)
    return model


def configured(make_config, path, scale):
    return make_config(
        model={
            "preset": "edsr_baseline",
            "arguments": {**ARGUMENTS, "scale": scale, "value_range": 1.0},
            "pretrained": str(path),
        }
    )


def test_a_network_of_another_scale_gives_all_but_its_tail(make_config, tmp_path):
    path = tmp_path / "x2.safetensors"
    source = write_dense(path, **ARGUMENTS, value_range=1.0)

    model, _ = build_dense(configured(make_config, path, scale=3))

    given = dict(source.named_parameters())
    fresh = {
        name
        for name, tensor in model.named_parameters()
        if tensor.shape != given[name].shape or not torch.equal(tensor, given[name])
    }
    assert fresh == {name for name in given if name.startswith("tail")}


def test_the_value_range_of_the_source_does_not_matter(make_config, tmp_path):
    path = tmp_path / "x2.safetensors"
    source = write_dense(path, **ARGUMENTS, value_range=255.0)

    model, _ = build_dense(configured(make_config, path, scale=2))

    torch.testing.assert_close(model.head.weight, source.head.weight)
    torch.testing.assert_close(model.head.bias, source.head.bias / 255)


def test_a_network_without_a_fitting_tensor_is_refused(make_config, tmp_path):
    path = tmp_path / "vdsr.safetensors"
    write_dense(path, "vdsr", layers=3, features=8)

    with pytest.raises(InputError, match=r"vdsr.* has no tensor that fits edsr"):
        build_dense(configured(make_config, path, scale=2))


def test_a_converted_network_is_refused(make_config, tmp_path):
    path = tmp_path / "ghost.safetensors"
    ghost, _ = convert(create_model("edsr_baseline", **ARGUMENTS), 0.5)
    save_model(ghost, path)

    with pytest.raises(InputError, match="is a GhostSR network, allowed are dense ones"):
        build_dense(configured(make_config, path, scale=2))
