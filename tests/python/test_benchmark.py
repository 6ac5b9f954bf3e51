import json
import math

import pytest
import torch
from enlarger import Enlarger
from ghostsr_ext.benchmark import compare_networks, time_interleaved
from ghostsr_ext.conversion import convert
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.models.vdsr import VDSR
from ghostsr_ext.profiling import cost
from recorders import CpuRecorder


@pytest.fixture
def networks():
    dense = EDSR(scale=2, blocks=2, features=8)
    return {"dense": dense, "ghost": convert(dense)[0]}


def test_runs_are_interleaved_and_the_order_alternates():
    calls = []

    timings = time_interleaved(
        {name: lambda name=name: calls.append(name) for name in "abc"},
        repeats=2,
        warmup=1,
        device=torch.device("cpu"),
    )

    assert "".join(calls) == "abccbaabc"
    assert {name: len(timing.seconds) for name, timing in timings.items()} == dict.fromkeys(
        "abc", 2
    )


def test_a_network_costs_what_it_costs_alone(networks):
    comparison = compare_networks(networks, size=(12, 16), repeats=3)

    for measured, (name, network) in zip(comparison.networks, networks.items(), strict=True):
        assert measured.name == name
        assert measured.parameters == cost(network).parameters
        assert measured.macs == cost(network).macs
        assert len(measured.timing.seconds) == 3
        assert (
            min(measured.timing.seconds) <= measured.timing.median <= max(measured.timing.seconds)
        )
        assert measured.throughput == pytest.approx(4 * 12 * 16 / measured.timing.median)
    dense, ghost = comparison.networks
    assert ghost.parameters < dense.parameters
    assert ghost.macs < dense.macs
    assert (dense.ghost_layers, ghost.ghost_layers) == (0, 4)


def test_the_same_network_in_plain_torch_costs_the_same_and_leads(networks):
    comparison = compare_networks(
        networks, size=(8, 8), repeats=1, plain_torch=True, psnr={"dense": 30.5}, dataset="Two"
    )

    plain, dense, ghost = comparison.networks
    assert (plain.name, dense.name, ghost.name) == ("dense, plain torch", "dense", "ghost")
    assert (plain.parameters, plain.macs) == (dense.parameters, dense.macs)
    assert plain.psnr == dense.psnr == 30.5
    assert comparison.rows()[0]["speed"] == "1.00x"


def test_plain_torch_computes_what_the_network_computes_without_its_operators(networks):
    """What is timed as plain torch gives the same picture and calls no operator of the package."""
    from ghostsr_ext import benchmark
    from torch.utils._python_dispatch import TorchDispatchMode

    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.namespace)
            return func(*args, **(kwargs or {}))

    candidates = benchmark._candidates(
        networks, 2, (8, 8), 1, torch.device("cpu"), torch.float32, plain_torch=True
    )
    with torch.no_grad():
        expected = candidates["dense"].run()
        with Record():
            output = candidates["dense, plain torch"].run()

    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    assert "ghostsr" not in called


def test_an_enlarged_input_is_timed_at_its_size():
    comparison = compare_networks({"vdsr": VDSR(layers=3)}, scale=3, size=(10, 10), repeats=1)

    # The luma that goes in and at least one map of 64 channels.
    assert comparison.networks[0].peak_memory >= 4 * 30 * 30 * 65


def test_a_batch_counts_as_so_many_pictures(networks):
    comparison = compare_networks(networks, size=(8, 8), batch=3, repeats=1)

    measured = comparison.networks[0]
    assert measured.throughput == pytest.approx(3 * 4 * 64 / measured.timing.median)


def test_the_networks_given_are_not_changed(networks):
    networks["dense"].train()

    compare_networks(networks, size=(8, 8), repeats=1, dtype=torch.float64)

    assert networks["dense"].training
    assert next(networks["dense"].parameters()).dtype == torch.float32


def test_everything_is_told_as_json(networks):
    comparison = compare_networks(
        networks, size=(8, 8), repeats=2, psnr={"dense": 30.5, "ghost": math.inf}, dataset="Two"
    )

    document = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert document["size"] == [8, 8]
    assert len(document["networks"][0]["timing"]["seconds"]) == 2
    assert [network["psnr"] for network in document["networks"]] == [30.5, None]
    assert set(document["environment"]) == {"ghostsr", "torch", "processor", "system"}


@pytest.fixture
def recorder(monkeypatch):
    """Networks are recorded on the CPU."""
    from ghostsr_ext import benchmark

    made = CpuRecorder()
    monkeypatch.setattr(benchmark, "device_recorder", lambda device: made)
    return made


def test_where_work_can_be_recorded_every_row_is_timed_both_ways(networks, recorder):
    comparison = compare_networks(networks, size=(8, 9), repeats=3, plain_torch=True)

    assert recorder.recorded == 3 * [(1, 3, 8, 9)]
    # In each of two rounds of warm-up and three that count.
    assert recorder.replays == 3 * 5
    for network in comparison.networks:
        assert len(network.timing.seconds) == len(network.replayed.seconds) == 3
    first, second, _ = (network.replayed.median for network in comparison.networks)
    rows = comparison.rows()
    assert [row["replayed speed"] for row in rows][:2] == ["1.00x", f"{first / second:.2f}x"]
    assert rows[1]["replayed"] == f"{1e3 * second:.2f} ms"
    assert "replayed: the same as a CUDA graph" in comparison.conditions()
    told = json.loads(json.dumps(comparison.as_dict()))["networks"][1]["replayed"]
    assert told["median"] == second
    assert len(told["seconds"]) == 3


def test_networks_that_cannot_be_captured_are_timed_as_they_run(networks, recorder):
    comparison = compare_networks({**networks, "foreign": Enlarger()}, size=(8, 9), repeats=1)

    assert [network.replayed is None for network in comparison.networks] == [False, False, True]
    assert comparison.rows()[2]["replayed"] == comparison.rows()[2]["replayed speed"] == "-"
    assert comparison.as_dict()["networks"][2]["replayed"] is None


def test_networks_whose_recording_fails_are_timed_as_they_run(networks, recorder):
    recorder.error = RuntimeError("operation not permitted when stream is capturing")

    comparison = compare_networks(networks, size=(8, 9), repeats=1)

    assert [network.replayed for network in comparison.networks] == [None, None]


def test_without_a_recorder_nothing_is_said_of_replays(networks):
    comparison = compare_networks(networks, size=(8, 9), repeats=1)

    assert "replayed" not in comparison.rows()[0]
    assert "replayed" not in comparison.conditions()
    assert comparison.as_dict()["networks"][0]["replayed"] is None


def test_the_table_has_a_row_a_network_and_names_its_conditions(networks):
    text = compare_networks(networks, size=(8, 9), repeats=2, psnr={"dense": 30.5}, dataset="Two")

    lines = text.markdown().splitlines()
    assert lines[0].startswith("| network | parameters |")
    assert lines[0].endswith("| PSNR Two |")
    assert lines[2].startswith("| dense |")
    assert lines[2].endswith("| 30.50 dB |")
    assert lines[3].endswith("| - |")
    assert "x2 from 9x8, batch 1, float32, cpu" in lines[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats: found 0"),
        ({"batch": 0}, "batch: found 0"),
        ({"size": (0, 4)}, "rows: found 0"),
        ({"scale": 3}, "dense, scale: found 3; this network serves x2"),
        ({"device": "tpu"}, "device: found 'tpu', which cannot be used here"),
        ({"dtype": torch.int8}, "dtype: found torch.int8; allowed are torch.float32"),
    ],
)
def test_wrong_arguments_are_refused(networks, options, message):
    with pytest.raises(InputError, match=message):
        compare_networks(networks, **options)


def test_no_network_is_refused():
    with pytest.raises(InputError, match="models: found none"):
        compare_networks({})


def test_exhausted_memory_is_said(networks, monkeypatch):
    def exhausted(self, image, scale):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(EDSR, "upscale", exhausted)

    with pytest.raises(GhostsrError, match="not enough memory on cpu for 320x180, batch 1"):
        compare_networks(networks)
