import json
import os
import subprocess
import sys

import pytest
import torch
from ghostsr_ext.errors import InputError
from ghostsr_ext.imaging import write_image
from ghostsr_ext.training import train, write_config
from ghostsr_ext.training.distributed import processes
from run_cases import smooth_picture
from safetensors.torch import load_file

SCRIPT = """
import os, signal, sys
from pathlib import Path
from ghostsr_ext.conversion import polish_checkpoint
from ghostsr_ext.training import read_config, train

polish_checkpoint._SECONDS_BETWEEN, polish_checkpoint._MOST_OF_TIME = 0.0, float("inf")

class Killer:
    def __init__(self, run, config): self.mark = run.path / "killed"
    def decoded(self, done, total): pass
    def converting(self, done, total, what):
        if what == "training end to end" and done >= 50:
            self.kill_once("--kill-in-polish")
    def noted(self, line): print(line, flush=True)
    def started(self, step, steps): print("started at", step, flush=True)
    def stepped(self, step):
        if step == 3: self.kill_once("--kill")
    def kill_once(self, wanted):
        if wanted in sys.argv and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    def progressed(self, progress, model): pass
    def measured(self, step, measurements, best, model): pass
    def finished(self): pass

resume = "--resume" in sys.argv
train(read_config(sys.argv[1]), Path(sys.argv[2]), resume=resume, observers=[Killer])
"""


def torchrun(tmp_path, config, run, *arguments, restarts=0):
    write_config(config, tmp_path / "config.toml", overwrite=True)
    return torchrun_script(
        tmp_path, SCRIPT, str(tmp_path / "config.toml"), str(run), *arguments, restarts=restarts
    )


def torchrun_script(tmp_path, script, *arguments, restarts=0):
    (tmp_path / "script.py").write_text(script)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--max-restarts={restarts}",
        "--standalone",
        str(tmp_path / "script.py"),
        *arguments,
    ]
    # Restarted workers must not find the addresses of those before them (pytorch/pytorch#135712).
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env=environment
    )


def entries(folder, event):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def test_two_processes_train_the_network_of_one(make_config, pictures, tmp_path):
    config = make_config(
        training={"ema_decay": 0.5, "steps": 6},
        validation={"sets": [str(pictures)], "every": 3},
        shifts={"freeze_at": 0.5},
    )
    train(config, tmp_path / "one")

    ended = torchrun(tmp_path, config, tmp_path / "two")

    assert ended.returncode == 0, ended.stderr
    for first, second in zip(
        entries(tmp_path / "one", "progress"), entries(tmp_path / "two", "progress"), strict=True
    ):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
    for first, second in zip(
        entries(tmp_path / "one", "validation"),
        entries(tmp_path / "two", "validation"),
        strict=True,
    ):
        assert second["psnr"] == pytest.approx(first["psnr"], abs=1e-3)
        assert second["ssim"] == pytest.approx(first["ssim"], abs=1e-4)
    one = load_file(tmp_path / "one" / "final.safetensors")
    two = load_file(tmp_path / "two" / "final.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_resume_and_one_alone_may_not(make_config, tmp_path):
    config = make_config(training={"steps": 4}, checkpoints={"every": 2})
    assert torchrun(tmp_path, config, tmp_path / "run").returncode == 0
    (tmp_path / "run" / "checkpoints" / "step_00000004.pt").unlink()
    before = load_file(tmp_path / "run" / "final.safetensors")

    ended = torchrun(tmp_path, config, tmp_path / "run", "--resume")

    assert ended.returncode == 0, ended.stderr
    after = load_file(tmp_path / "run" / "final.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(InputError, match="trained by 2 processes, now there are 1"):
        train(config, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_a_process_that_torchrun_restarts_goes_on_from_the_last_checkpoint(make_config, tmp_path):
    config = make_config(training={"steps": 4}, checkpoints={"every": 2})

    ended = torchrun(tmp_path, config, tmp_path / "run", "--kill", restarts=1)

    assert ended.returncode == 0, ended.stderr
    assert "started at 0" in ended.stdout
    assert "started at 2" in ended.stdout
    assert (tmp_path / "run" / "final.safetensors").exists()


@pytest.mark.slow
def test_processes_that_torchrun_restarts_in_a_polish_go_on_with_it(make_config, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    write_image(folder / "one.png", smooth_picture(1, 96, 112))
    config = make_config(
        conversion={"method": "filters", "calibration": str(folder), "polish_steps": 8},
        training={"steps": 2},
    )

    ended = torchrun(tmp_path, config, tmp_path / "run", "--kill-in-polish", restarts=1)

    assert ended.returncode == 0, ended.stderr
    assert "goes on from step" in ended.stdout
    assert (tmp_path / "run" / "final.safetensors").exists()


WAITING = """
import datetime, sys, time
from ghostsr_ext.training.distributed import processes
from torch.distributed.distributed_c10d import _set_pg_timeout

with processes("cpu") as (group, _):
    group.barrier()
    _set_pg_timeout(datetime.timedelta(seconds=2))
    if group.first:
        time.sleep(6)
    getattr(group, sys.argv[1])()
    print("waited")
"""


@pytest.mark.parametrize(("wait", "ends"), [("wait_long", True), ("barrier", False)])
def test_processes_wait_for_work_that_takes_longer_than_torch_waits(tmp_path, wait, ends):
    ended = torchrun_script(tmp_path, WAITING, wait)

    assert (ended.returncode == 0) == ends, ended.stderr
    assert (ended.stdout.count("waited") == 2) == ends


@pytest.mark.parametrize("device", ["banana", "mps"])
def test_a_device_that_does_not_exist_is_named(device):
    with pytest.raises(InputError, match=f"training.device: '{device}'"), processes(device):
        pytest.fail("the device was accepted")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(InputError, match="finds no CUDA device"), processes("cuda"):
        pytest.fail("the device was accepted")
