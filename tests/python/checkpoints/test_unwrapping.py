from pathlib import Path
from typing import Any

import pytest
import torch
from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.checkpoints.unwrapping import find_candidates
from ghostsr_ext.errors import InputError
from published_networks import EdsrPytorch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

State = dict[str, Tensor]


def edsr(seed: int) -> EdsrPytorch:
    torch.manual_seed(seed)
    return EdsrPytorch(2, features=4, blocks=1)


@pytest.fixture
def wanted() -> State:
    return edsr(0).state_dict()


@pytest.fixture
def other() -> State:
    return edsr(1).state_dict()


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def assert_takes(content: Any, wanted: State, folder: Path) -> list[str]:
    """The file's network has the wanted weights; returns how the reader came to them."""
    path = folder / "checkpoint.pth"
    torch.save(content, path)
    model = load_model(path)
    torch.testing.assert_close(model.head.weight, wanted["head.0.weight"], rtol=0, atol=0)
    evidence: list[str] = model.origin["evidence"]
    return evidence


@pytest.mark.parametrize(
    ("averaged", "plain"),
    [
        ("ema", "model"),
        ("model_ema", "model"),
        ("params_ema", "params"),
        ("ema_state_dict", "state_dict"),
        ("state_dict_ema", "state_dict"),
        ("ema_model", "model_state_dict"),
        ("netG_ema", "netG"),
        ("g_ema", "g"),
        ("swa_model", "model"),
    ],
)
@pytest.mark.parametrize("averaged_first", [True, False])
def test_averaged_weights_are_taken_and_said_to_be(
    averaged: str, plain: str, averaged_first: bool, wanted: State, other: State, tmp_path: Path
) -> None:
    entries = [(averaged, wanted), (plain, other)]
    content = dict(entries if averaged_first else reversed(entries))
    evidence = assert_takes(content, wanted, tmp_path)
    assert f"several networks in the file: {averaged!r} was taken, not {plain!r}" in evidence


def test_averaged_weights_inside_another_object_are_taken(
    wanted: State, other: State, tmp_path: Path
) -> None:
    content = {"model": other, "ema": {"decay": 0.999, "module": wanted}}
    evidence = assert_takes(content, wanted, tmp_path)
    assert "state dict found under 'ema.module'" in evidence


def test_an_average_that_is_no_network_gives_way(wanted: State, tmp_path: Path) -> None:
    content = {"ema": {"shadow": torch.zeros(3, 3)}, "model": wanted}
    assert_takes(content, wanted, tmp_path)


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.",
        "model.",
        "generator.",
        "netG.",
        "net_g.",
        "sr_network.",
    ],
)
def test_prefixes_that_all_keys_have_are_removed(
    prefix: str, wanted: State, tmp_path: Path
) -> None:
    evidence = assert_takes(prefixed(prefix, wanted), wanted, tmp_path)
    for part in prefix.removesuffix(".").split("."):
        assert f"prefix '{part}.' removed from every key" in evidence


def test_prefixes_are_removed_in_safetensors_files_too(wanted: State, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file(prefixed("_orig_mod.", wanted), path)
    torch.testing.assert_close(load_model(path).head.weight, wanted["head.0.weight"])


def test_torchs_averaged_model_is_read(wanted: State, tmp_path: Path) -> None:
    state = AveragedModel(edsr(0)).state_dict()
    assert "n_averaged" in state
    assert_takes(state, wanted, tmp_path)


def test_an_averaged_twin_is_told_by_its_count(wanted: State, other: State, tmp_path: Path) -> None:
    content = {"first": other, "second": AveragedModel(edsr(0)).state_dict()}
    assert_takes(content, wanted, tmp_path)


@pytest.mark.parametrize("wrapper", ["generator", "netG", "net_g", "G"])
def test_a_generator_beside_its_discriminator_is_read(
    wrapper: str, wanted: State, tmp_path: Path
) -> None:
    discriminator = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 1)).state_dict()
    opponent = {"generator": "discriminator", "netG": "netD", "net_g": "net_d", "G": "D"}[wrapper]
    evidence = assert_takes({opponent: discriminator, wrapper: wanted}, wanted, tmp_path)
    assert f"several networks in the file: {wrapper!r} was taken, not {opponent!r}" in evidence
    flat = {**prefixed(f"{opponent}.", discriminator), **prefixed(f"{wrapper}.", wanted)}
    assert_takes({"state_dict": flat}, wanted, tmp_path)


def test_a_discriminator_of_the_same_layout_is_not_taken(
    wanted: State, other: State, tmp_path: Path
) -> None:
    assert_takes({"netD": other, "netG": wanted}, wanted, tmp_path)


def test_counters_of_operations_are_left_out(wanted: State, tmp_path: Path) -> None:
    counters = {
        name: torch.zeros(1, dtype=torch.float64)
        for name in ("total_ops", "total_params", "head.0.total_ops", "head.0.total_params")
    }
    evidence = assert_takes({**counters, **wanted}, wanted, tmp_path)
    assert (
        "4 entries left out that are no weights, such as total_ops, total_params, "
        in evidence[0] + " "
    )


@pytest.mark.parametrize("beside", [True, False])
def test_an_optimisers_state_is_passed_over(beside: bool, wanted: State, tmp_path: Path) -> None:
    network = edsr(0)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    state = network.state_dict()
    training = {"optimizer": optimizer.state_dict(), "epoch": 3, "best": 31.2, "args": None}
    content = {**training, **state} if beside else {**training, "weights_of_epoch_3": state}
    assert_takes(content, state, tmp_path)


def test_keys_that_fit_as_they_are_lose_nothing(wanted: State, tmp_path: Path) -> None:
    assert not [note for note in assert_takes(wanted, wanted, tmp_path) if "prefix" in note]


def test_content_that_holds_itself_ends_in_one_error(tmp_path: Path) -> None:
    cycle: dict[str, Any] = {"epoch": 1}
    cycle["state_dict"] = cycle
    path = tmp_path / "cycle.pth"
    torch.save(cycle, path)
    with pytest.raises(InputError, match="is no state dict; not tensors: epoch, state_dict"):
        load_model(path)


def test_a_cycle_beside_weights_does_no_harm(wanted: State, tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": wanted}
    content["trainer"] = {"parent": content}
    assert_takes(content, wanted, tmp_path)


def test_deep_and_wide_content_is_searched_to_a_limit() -> None:
    deep: dict[str, Any] = {"weight": torch.zeros(1, 1)}
    for _ in range(50_000):
        deep = {"inner": deep}
    assert find_candidates(deep) == ()
    wide = {str(number): {"weight": torch.zeros(1, 1)} for number in range(20_000)}
    assert 0 < len(find_candidates(wide)) <= 3 * 1024
    long = {"a." * 20_000 + "weight": torch.zeros(1, 1)}
    assert len(find_candidates(long)) < 20
