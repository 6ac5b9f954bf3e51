"""What is kept behind a handle never changes a result, and ends with it."""

import copy
import gc
import os
import pickle
import signal
import threading

import pytest
import torch
from ghost_layer_cases import make_layer
from ghostsr_ext import ops
from ghostsr_ext.nn import FusedConv2d, GhostConv2d

WIDE = {"in_channels": 16, "intrinsic": 8, "ghosts": 8, "size": (12, 12)}
PACKED_BYTES = 4 * 36 * 8 * 16


@pytest.fixture(autouse=True)
def _winograd(force_path):
    force_path("winograd")


def _arguments(seed=0, **options):
    return make_layer(**WIDE, **options, seed=seed).fixed(torch.float32, input="channels_last")


def test_a_cache_holds_what_the_last_weight_became():
    cache = ops.layer_cache()
    assert ops.cached_bytes(cache) == 0

    ops.ghost_conv(**_arguments(), cache=cache)

    assert ops.cached_bytes(cache) == PACKED_BYTES


@pytest.mark.parametrize(
    "changed",
    ["weight", "bias", "source", "shift", "order", "gain", "ghost_bias", "prelu_weight"],
)
@pytest.mark.parametrize("learned", [False, True])
def test_every_constant_counts_in_the_next_call(changed, learned):
    layer = make_layer(**WIDE, affine=True, ordered=True)
    arguments = (
        layer.learned(torch.float32, input="channels_last")
        if learned
        else layer.fixed(torch.float32, input="channels_last")
    )
    operator = ops.ghost_conv_learned if learned else ops.ghost_conv
    if learned:
        arguments["noise"] = None
        changed = "logits" if changed == "shift" else changed
    arguments |= {"activation": "prelu", "prelu_weight": torch.full((16,), 0.25)}
    cache = ops.layer_cache()
    before = operator(**arguments, cache=cache)
    constant = arguments[changed].data
    if changed in ("source", "shift", "order", "logits"):
        constant.copy_(constant.flip(0) if changed != "shift" else -constant)
    else:
        constant[0] += 1

    after = operator(**arguments, cache=cache)

    assert not torch.equal(after, before)
    assert torch.equal(after, operator(**arguments))
    assert torch.equal(after, operator(**arguments, cache=cache))


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"activation": "leaky_relu"},
        {"activation": "leaky_relu", "negative_slope": 0.5},
        {"order": torch.arange(16).flip(0)},
        {"gain": torch.full((8,), 2.0)},
        {"groups": 2, "weight": torch.ones(8, 8, 3, 3)},
        {"padding": (0, 0)},
        {"residual_scale": 0.5},
    ],
    ids=str,
)
def test_one_cache_serves_any_options(options):
    arguments = _arguments()
    cache = ops.layer_cache()
    plain = ops.ghost_conv(**arguments, cache=cache)

    output = ops.ghost_conv(**(arguments | options), cache=cache)

    assert torch.equal(output, ops.ghost_conv(**(arguments | options)))
    assert torch.equal(ops.ghost_conv(**arguments, cache=cache), plain)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
def test_a_weight_in_any_layout_is_known_again(layout):
    arguments = make_layer(**WIDE).fixed(torch.float32, input="channels_last", weight=layout)
    cache = ops.layer_cache()
    first = ops.ghost_conv(**arguments, cache=cache)

    assert torch.equal(first, ops.ghost_conv(**arguments, cache=cache))
    arguments["weight"][0, 0, 0, 0] += 1
    changed = ops.ghost_conv(**arguments, cache=cache)
    assert torch.equal(changed, ops.ghost_conv(**arguments))
    assert not torch.equal(changed, first)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
def test_a_weight_in_any_layout_is_packed_once(layout):
    arguments = make_layer(**WIDE).fixed(torch.float32, input="channels_last", weight=layout)
    cache = ops.layer_cache()
    ops.ghost_conv(**arguments, cache=cache)

    assert _packings(lambda: ops.ghost_conv(**arguments, cache=cache)) == 0


@pytest.mark.parametrize("first", range(0, 64, 3))
@pytest.mark.parametrize("distance", [1, 2, 62, 63, 64, 65, 127, 128])
def test_two_changed_signs_are_seen(first, distance, force_path):
    force_path("pointwise")
    input = torch.randn(1, 16, 4, 4).to(memory_format=torch.channels_last)
    weight, empty = torch.randn(16, 16, 1, 1), torch.empty(0, dtype=torch.int64)
    arguments = (input, weight, None, empty, empty.view(0, 2))
    cache = ops.layer_cache()
    ops.ghost_conv(*arguments, cache=cache)
    weight.view(-1)[[first, first + distance]] *= -1

    assert torch.equal(ops.ghost_conv(*arguments, cache=cache), ops.ghost_conv(*arguments))


FORGERIES = {
    "empty": torch.empty(0, dtype=torch.uint8),
    "short": torch.zeros(8, dtype=torch.uint8),
    "zeros": torch.zeros(16, dtype=torch.uint8),
    "ones": torch.full((16,), 255, dtype=torch.uint8),
    "another dtype": torch.zeros(16),
    "gaps": torch.zeros(32, dtype=torch.uint8)[::2],
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_no_handle_is_refused(name):
    with pytest.raises(RuntimeError, match=r"cache: found .* layer_cache\(\) returned is needed"):
        ops.ghost_conv(**_arguments(), cache=FORGERIES[name])


def test_a_handle_of_another_process_names_a_cache_of_its_own():
    handle = ops.layer_cache()
    ops.ghost_conv(**_arguments(), cache=handle)
    forged = handle.clone()
    forged[8:] ^= 255

    assert ops.cached_bytes(forged) == 0
    output = ops.ghost_conv(**_arguments(1), cache=forged)

    assert torch.equal(output, ops.ghost_conv(**_arguments(1)))
    assert ops.cached_bytes(forged) == PACKED_BYTES


def test_a_copied_handle_names_the_same_cache_while_that_lives():
    handle = ops.layer_cache()
    ops.ghost_conv(**_arguments(), cache=handle)
    copies = [handle.clone(), copy.deepcopy(handle), pickle.loads(pickle.dumps(handle))]
    assert [ops.cached_bytes(one) for one in copies] == 3 * [PACKED_BYTES]

    del handle
    gc.collect()

    assert [ops.cached_bytes(one) for one in copies] == 3 * [0]
    assert torch.equal(
        ops.ghost_conv(**_arguments(), cache=copies[0]), ops.ghost_conv(**_arguments())
    )


def test_caches_out_of_files_are_bounded():
    first = ops.layer_cache().clone()
    ops.ghost_conv(**_arguments(), cache=first)
    assert ops.cached_bytes(first) == PACKED_BYTES
    for number in range(1024):
        forged = first.clone()
        forged[8:] = torch.tensor(list(number.to_bytes(8, "little")), dtype=torch.uint8)
        ops.cached_bytes(forged)

    assert ops.cached_bytes(first) == 0


def test_threads_that_change_a_layer_and_use_it_get_its_old_or_its_new_result():
    arguments = [_arguments(seed) for seed in range(2)]
    expected = [ops.ghost_conv(**one) for one in arguments]
    cache = ops.layer_cache()
    wrong = []

    def run(which):
        for _ in range(100):
            output = ops.ghost_conv(**arguments[which], cache=cache)
            if not torch.equal(output, expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=run, args=(index % 2,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_finds_no_lock_held():
    handle, like, done = ops.layer_cache(), torch.empty(1, 1, 128, 128), threading.Event()

    def use():
        ops.cached_bytes(handle)
        ops.empty_map(like, 4)

    def run():
        while not done.is_set():
            use()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    statuses = []
    for _ in range(40):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            use()
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
    done.set()
    for thread in threads:
        thread.join()

    assert statuses == 40 * [0]


def _layer():
    layer = GhostConv2d(16, 16, 3, padding=1, activation="relu").eval()
    layer.set_tables(torch.arange(8), torch.ones(8, 2, dtype=torch.int64)).freeze_shifts()
    return layer.to(memory_format=torch.channels_last)


INPUT = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0)).to(
    memory_format=torch.channels_last
)


def _packings(function):
    """Return how often a weight was packed, each time from a clone of it.

    What only compares a weight with gaps reads a copy of it that ``contiguous`` makes.
    """
    with torch.profiler.profile() as profile:
        function()
    return sum(
        event.name == "aten::clone"
        and (event.cpu_parent is None or event.cpu_parent.name != "aten::contiguous")
        for event in profile.events()
    )


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_layer_packs_once_and_never_computes_with_an_old_weight(backend):
    torch.compiler.reset()
    layer = _layer()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    with torch.no_grad():
        compiled(INPUT)
        assert _packings(lambda: compiled(INPUT)) == 0
        for change in (
            lambda: layer.weight.mul_(2),
            lambda: layer.weight.data.add_(1),
            lambda: layer.load_state_dict(
                {key: value.flip(0) for key, value in layer.state_dict().items()}
            ),
        ):
            change()
            assert _packings(lambda: compiled(INPUT)) == 1
            torch.testing.assert_close(compiled(INPUT), layer(INPUT))
            assert _packings(lambda: compiled(INPUT)) == 0


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_packs_once(strict, tmp_path):
    layer = _layer()
    with torch.no_grad():
        expected = layer(INPUT)
        program = torch.export.export(layer, (INPUT,), strict=strict)
        torch.export.save(program, tmp_path / "layer.pt2")
        del program
        loaded = torch.export.load(tmp_path / "layer.pt2").module()
        torch.testing.assert_close(loaded(INPUT), expected)

        assert _packings(lambda: loaded(INPUT)) <= 1
        assert "cache" in str(loaded.graph) or any("lifted" in key for key in dir(loaded))


def test_a_layer_under_a_fake_mode_needs_no_real_cache():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        output = FusedConv2d(16, 8, 3, padding=1)(torch.empty(1, 16, 12, 12))

    assert output.shape == (1, 8, 12, 12)
