"""The cost model: a fused pass moves each map once, and a tenth more than that fails."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import roofline

LAYER = roofline.LayerShape(
    name="body",
    macs=9 * 64 * 32 * 100,
    weights=9 * 64 * 32,
    input=6400,
    intrinsic=3200,
    output=6400,
    channels=64,
    ghosts=True,
    bias=True,
    scaled=True,
    residual=True,
    relu=True,
)
# Neither its multiprocessors nor its cache hold the rows of 64 channels at once.
FORGETFUL = roofline.Gpu("forgetful", {"float32": 1e12}, 1e11, cache_bytes=1, multiprocessors=1)


def test_the_floor_counts_every_map_once():
    assert roofline.fused_floor(LAYER) == 3200 + 6400 + 6400
    assert roofline.fused_floor(replace(LAYER, residual=False)) == 3200 + 6400


@pytest.mark.parametrize("gpu", roofline.GPUS, ids=lambda gpu: gpu.name)
def test_a_layer_stays_at_the_floor_on_every_listed_gpu(gpu):
    assert roofline.fused_elements(LAYER, gpu) <= 1.1 * roofline.fused_floor(LAYER)


def test_a_gpu_that_forgets_a_row_reads_the_ghosts_sources_again():
    assert roofline.fused_elements(LAYER, FORGETFUL) == roofline.fused_floor(LAYER) + 3200


def test_plain_torch_moves_more_than_the_fused_pass():
    gpu = roofline.GPUS[0]
    plain, fused = (
        sum(step.elements for step in steps)
        for steps in (roofline.plain_steps(LAYER), roofline.fused_steps(LAYER, gpu))
    )

    assert plain > 2 * fused


def test_carn_meets_the_gate_on_the_listed_gpus_and_breaks_it_on_a_forgetful_one(
    monkeypatch, capsys
):
    monkeypatch.setattr(roofline, "NETWORKS", ("carn",))
    monkeypatch.setattr(roofline, "SCALES", (2,))

    roofline.main()

    assert "at most 1.00 times the floor" in capsys.readouterr().out
    monkeypatch.setattr(roofline, "GPUS", (FORGETFUL,))
    with pytest.raises(SystemExit, match=r"more than 1\.1 times the floor"):
        roofline.main()
