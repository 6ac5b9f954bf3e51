"""Networks that begin with tensors of another one."""

import pytest
import torch
from ghostsr_ext.checkpoints import load_model, save_model
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import create_model
from ghostsr_ext.training import train
from ghostsr_ext.training.data import BatchPlan, PatchBatches, open_cached
from ghostsr_ext.training.last_convolution import fit_last_convolution
from ghostsr_ext.training.network import build_dense
from ghostsr_ext.training.value_range import to_unit_range

ARGUMENTS = {"scale": 2, "blocks": 1, "features": 4, "tail": "direct"}


def write_dense(path, preset="edsr_baseline", **arguments):
    torch.manual_seed(7)
    model = create_model(preset, **arguments)
    save_model(model, path)
    return model


def configured(make_config, path, scale, **keys):
    return make_config(
        model={
            "preset": "edsr_baseline",
            "arguments": {**ARGUMENTS, "scale": scale, "value_range": 1.0},
            "pretrained": str(path),
            **keys,
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


@pytest.mark.parametrize("mean", [None, [0.4, 0.5, 0.6]])
def test_a_network_with_another_mean_is_refused(make_config, tmp_path, mean):
    path = tmp_path / "x2.safetensors"
    write_dense(path, **ARGUMENTS, mean=mean)

    with pytest.raises(InputError, match=r"subtracts the mean \[.*\] of 1 and the network"):
        build_dense(configured(make_config, path, scale=3))


def test_a_mean_of_zero_is_none(make_config, tmp_path):
    path = tmp_path / "x2.safetensors"
    source = write_dense(path, **ARGUMENTS, mean=None)
    config = configured(make_config, path, scale=3)
    arguments = {**config.model.arguments, "mean": [0.0, 0.0, 0.0]}

    model, _ = build_dense(configured(make_config, path, scale=3, arguments=arguments))

    assert torch.equal(model.head.weight, source.head.weight)


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


def _batches(folder, cache, scale):
    plan = BatchPlan(seed=3, batch_size=64, patch=8)
    return PatchBatches([open_cached([folder], scale, 8, cache)], plan)


@pytest.mark.parametrize("preset", ["edsr_baseline", "realesr_animevideov3"])
@pytest.mark.parametrize("scale", [2, 3])
def test_the_last_convolution_is_that_of_least_squares(pictures, tmp_path, preset, scale):
    arguments = {
        "edsr_baseline": {**ARGUMENTS, "mean": "div2k"},
        "realesr_animevideov3": {"layers": 1, "features": 4},
    }
    torch.manual_seed(5)
    model = create_model(preset, **{**arguments[preset], "scale": scale})
    if preset == "edsr_baseline":
        to_unit_range(model)
    last = model.tail if preset == "edsr_baseline" else model.last
    others = {n: p.clone() for n, p in model.named_parameters() if p not in {*last.parameters()}}
    batches = _batches(pictures, tmp_path / "cache", scale)

    fit_last_convolution(model, batches)

    loss = sum(
        (batch.targets - model(batch.inputs))[..., scale:-scale, scale:-scale].square().sum()
        for batch in (batches[number] for number in range(16))
    )
    gradients = torch.autograd.grad(loss, [last.weight, last.bias])
    assert max(gradient.abs().max() for gradient in gradients) < 1e-3 * loss
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in others.items())


def test_a_run_begins_with_the_fitted_convolution(make_config, pictures, tmp_path):
    path = tmp_path / "x2.safetensors"
    write_dense(path, **ARGUMENTS, value_range=1.0)
    config = configured(make_config, path, scale=3, fit_last=True)

    train(config, tmp_path / "run")

    expected, _ = build_dense(config)
    plan = BatchPlan(seed=config.training.seed, batch_size=4, patch=8, sampling="uniform")
    store = open_cached([pictures], 3, 8, tmp_path / "cache")
    fit_last_convolution(expected, PatchBatches([store], plan))
    actual = load_model(tmp_path / "run" / "initial.safetensors")
    assert torch.equal(actual.tail.weight, expected.tail.weight)


@pytest.mark.parametrize(
    ("preset", "arguments"),
    [
        ("edsr_baseline", {"scale": 2, "blocks": 1, "features": 4}),
        ("carn_m", {"scale": [2, 3]}),
        ("vdsr", {"layers": 3, "features": 8}),
    ],
)
def test_a_network_that_ends_otherwise_has_no_convolution_to_fit(
    pictures, tmp_path, preset, arguments
):
    model = create_model(preset, **arguments)

    with pytest.raises(InputError, match=r"fit_last: .* does not end in a convolution and"):
        fit_last_convolution(model, _batches(pictures, tmp_path / "cache", 2))


def test_only_what_has_other_layers_is_fitted(make_config):
    with pytest.raises(InputError, match="fit_last belongs to pretrained"):
        make_config(model={"fit_last": True})


def test_maps_that_are_not_finite_are_refused(pictures, tmp_path):
    model = create_model("edsr_baseline", **ARGUMENTS, value_range=1.0)
    with torch.no_grad():
        model.body_end.bias[0] = float("nan")

    with pytest.raises(InputError, match=r"fit_last: edsr makes maps that are not finite"):
        fit_last_convolution(model, _batches(pictures, tmp_path / "cache", 2))
