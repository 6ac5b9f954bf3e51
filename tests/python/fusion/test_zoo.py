"""Networks of spandrel's architectures are fused, converted, stored and trained."""

from pathlib import Path

import pytest
import torch

# Beside another build of torch, torchvision fails with whatever its libraries say.
pytest.importorskip("spandrel", reason="spandrel cannot be imported", exc_type=Exception)

from ghostsr_ext.checkpoints import load_model
from ghostsr_ext.errors import InputError
from zoo import ARCHITECTURES, OtherProcess, build, examine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def other_process():
    process = OtherProcess()
    yield process
    process.close()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture(name: str, tmp_path: Path, other_process: OtherProcess) -> None:
    examine(name, tmp_path, other_process)


def test_networks_that_need_a_mask_are_refused(tmp_path: Path) -> None:
    from spandrel.architectures.LaMa import LaMa

    torch.save(LaMa().state_dict(), tmp_path / "lama.pth")
    with pytest.raises(InputError, match=r"lama\.pth: spandrel's LaMa is for Inpainting"):
        load_model(tmp_path / "lama.pth")


def test_files_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "unknown.pth")
    with pytest.raises(InputError, match="spandrel does not know it either"):
        load_model(tmp_path / "unknown.pth")


def test_files_that_only_look_like_an_architecture_are_refused(tmp_path: Path) -> None:
    state = build("SwinIR").state_dict()
    state.pop("norm.weight")
    state["layers.9999999.residual_group.blocks.0.norm1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(InputError, match=r"broken\.pth: "):
        load_model(tmp_path / "broken.pth")
