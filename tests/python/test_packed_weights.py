"""A layer keeps its packed weight, and never computes with one of other values."""

import copy
import io
import pickle
import threading

import pytest
import torch
from ghostsr_ext import ops, reference
from ghostsr_ext.nn import FusedConv2d, GhostConv2d
from ghostsr_ext.packed_weights import packed_weight_bytes

INPUT = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0)).to(
    memory_format=torch.channels_last
)
# 36 floats for each of 8 filters and 16 input channels.
PACKED_BYTES = 4 * 36 * 8 * 16
PACKED_BYTES_BY_KIND = {
    "ghost": PACKED_BYTES,
    "fused": PACKED_BYTES,
    # The 4 filters of each group are padded to 8.
    "grouped": 4 * 36 * 2 * 8 * 8,
    "pointwise": 4 * 8 * 16,
}


@pytest.fixture(autouse=True)
def _winograd(force_path, one_thread):
    force_path("winograd")


def _make_layer(kind="ghost"):
    if kind == "fused":
        return FusedConv2d(16, 8, 3, padding=1)
    if kind == "pointwise":
        layer = GhostConv2d(16, 16, 1)
    else:
        layer = GhostConv2d(16, 16, 3, padding=1, groups=2 if kind == "grouped" else 1)
    layer.set_tables(torch.arange(8), torch.ones(8, 2, dtype=torch.int64))
    return layer.freeze_shifts()


@pytest.fixture(params=PACKED_BYTES_BY_KIND)
def layer(request, force_path):
    """A layer that has just packed its weight."""
    if request.param == "pointwise":
        force_path("pointwise")
    layer = _make_layer(request.param)
    with torch.no_grad():
        layer(INPUT)
    assert packed_weight_bytes(layer) == PACKED_BYTES_BY_KIND[request.param]
    return layer


def _expected(layer):
    """The layer's output from the weight that it has now."""
    source = getattr(layer, "source", torch.empty(0, dtype=torch.int64))
    shift = getattr(layer, "shift", torch.empty(0, 2, dtype=torch.int64))
    with torch.no_grad():
        return reference.ghost_conv(
            INPUT.double(),
            layer.weight.double(),
            layer.bias.double(),
            source,
            shift,
            padding=layer.padding,
            groups=layer.groups,
        )


def _assert_current(layer):
    expected = _expected(layer)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            output = layer(INPUT)
        assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()


def _load_state_dict(layer):
    layer.load_state_dict(
        {
            name: value + 1 if value.is_floating_point() else value
            for name, value in layer.state_dict().items()
        }
    )


def _load_state_dict_by_assignment(layer):
    state = {
        name: value + 1 if value.is_floating_point() else value.clone()
        for name, value in layer.state_dict().items()
    }
    layer.load_state_dict(state, assign=True)


def _optimizer_step(optimiser_type, **options):
    def step(layer):
        optimiser = optimiser_type(layer.parameters(), lr=0.5, **options)
        layer(INPUT).square().sum().backward()
        optimiser.step()

    return step


def _edit_data(layer):
    layer.weight.data.add_(1)


def _edit_one_element_through_data(layer):
    layer.weight.data[0, 0, 0, 0] += 10


def _edit_through_numpy(layer):
    layer.weight.detach().numpy()[...] *= 3


def _edit_through_detach(layer):
    layer.weight.detach().mul_(3)


def _replace_data(layer):
    layer.weight.data = layer.weight.data + 1


def _replace_data_by_another_layout(layer):
    layer.weight.data = (layer.weight.data * 2).to(memory_format=torch.channels_last)


def _edit_in_place(layer):
    with torch.no_grad():
        layer.weight.mul_(3)


def _edit_in_inference_mode(layer):
    with torch.inference_mode():
        layer.weight.mul_(3)


def _replace_parameter(layer):
    layer.weight = torch.nn.Parameter(layer.weight.detach() + 1)


def _swap_filters(layer):
    layer.weight.data = layer.weight.data.flip(0).contiguous()


def _exchange_two_values(layer):
    flat = layer.weight.data.view(-1)
    flat[[0, 1]] = flat[[1, 0]]


def _negate(layer):
    layer.weight.data.neg_()


CHANGES = {
    change.__name__.strip("_").replace("_", " "): change
    for change in (
        _load_state_dict,
        _load_state_dict_by_assignment,
        _edit_data,
        _edit_one_element_through_data,
        _edit_through_numpy,
        _edit_through_detach,
        _replace_data,
        _replace_data_by_another_layout,
        _edit_in_place,
        _edit_in_inference_mode,
        _replace_parameter,
        _swap_filters,
        _exchange_two_values,
        _negate,
    )
} | {
    "step of SGD": _optimizer_step(torch.optim.SGD),
    "step of Adam": _optimizer_step(torch.optim.Adam),
    "step of fused Adam": _optimizer_step(torch.optim.Adam, fused=True),
    "step of foreach SGD": _optimizer_step(torch.optim.SGD, foreach=True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_weight_counts_at_once(layer, name):
    before = _expected(layer)

    CHANGES[name](layer)

    assert not torch.equal(_expected(layer), before)
    _assert_current(layer)


def test_a_weight_changed_back_is_the_first_one_again(layer):
    first = layer.weight.detach().clone()
    with torch.no_grad():
        output = layer(INPUT)
        for value in (first * 2, first):
            layer.weight.data.copy_(value)
            _assert_current(layer)
        assert torch.equal(layer(INPUT), output)


def test_a_new_parameter_at_an_old_address_counts(layer):
    storage = layer.weight.detach()
    values = torch.randn_like(storage)
    del layer.weight
    storage.copy_(values)
    layer.weight = torch.nn.Parameter(storage)

    _assert_current(layer)


@pytest.mark.parametrize("owner", ["original", "copy"])
def test_a_copy_and_its_original_go_their_own_ways(layer, owner):
    copied = copy.deepcopy(layer)
    changed, kept = (layer, copied) if owner == "original" else (copied, layer)
    before = _expected(kept)
    _edit_data(changed)

    _assert_current(changed)
    _assert_current(kept)
    assert torch.equal(_expected(kept), before)


def test_a_copy_packs_for_itself(layer):
    assert packed_weight_bytes(copy.deepcopy(layer)) == 0


def test_a_pickled_layer_comes_back_without_the_packed_weight(layer):
    restored = pickle.loads(pickle.dumps(layer))

    assert packed_weight_bytes(restored) == 0
    _assert_current(restored)
    _edit_data(restored)
    _assert_current(restored)


def test_a_saved_layer_is_no_larger_for_having_been_used(layer):
    unused = copy.deepcopy(layer)
    sizes = []
    for one in (layer, unused):
        stream = io.BytesIO()
        torch.save(one, stream)
        sizes.append(len(stream.getvalue()))

    assert sizes[0] == sizes[1]
    assert "cache" not in " ".join(layer.state_dict())


def test_a_weight_used_by_two_layers_counts_for_both(layer):
    other = copy.deepcopy(layer)
    other.weight = layer.weight
    _assert_current(other)
    _edit_data(layer)

    _assert_current(layer)
    _assert_current(other)


def test_a_weight_made_in_inference_mode_counts_after_every_edit():
    with torch.inference_mode():
        layer = _make_layer()
        for _ in range(3):
            layer.weight.mul_(2)
            _assert_current(layer)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_packed_weight_of_one_mode_serves_the_other(layer, mode):
    layer.cache = ops.LayerCache()
    with mode():
        layer(INPUT)

    _assert_current(layer)
    layer(INPUT).sum().backward()
    assert layer.weight.grad is not None


def test_a_weight_that_learns_is_not_kept():
    layer = _make_layer()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)

    for _ in range(3):
        layer(INPUT).square().sum().backward()
        optimiser.step()

    assert packed_weight_bytes(layer) == 0


def test_a_weight_that_stays_is_kept_while_gradients_are_recorded():
    layer = _make_layer()

    for _ in range(2):
        layer(INPUT)

    assert packed_weight_bytes(layer) == PACKED_BYTES
    _assert_current(layer)


def test_a_layer_with_logits_keeps_its_weight():
    layer = _make_layer().learn_shifts().eval()

    with torch.no_grad():
        layer(INPUT)

    assert packed_weight_bytes(layer) == PACKED_BYTES
    _assert_current(layer)
    with torch.no_grad():
        layer.logits.copy_(layer.logits.roll(1, dims=1))
        expected = _expected(layer.freeze_shifts())
        assert (layer(INPUT) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_layer_recovers_from_an_edit_behind_its_back(layer, mode):
    """A call with a kept weight reads it once; one without also clones and packs it."""
    allocated = []
    for change in (lambda layer: None, _edit_data, lambda layer: None, lambda layer: None):
        change(layer)
        with mode(), torch.profiler.profile() as profile:
            layer(INPUT)
        allocated.append(sum(event.name == "aten::clone" for event in profile.events()))

    assert allocated == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        ((16, 16, 3, 2, 1), INPUT),
        ((16, 16, 5, 1, 2), INPUT),
        ((16, 16, 3, 1, 2, 2), INPUT),
        ((16, 16, 1), INPUT),
        ((16, 16, 3, 1, 1), INPUT.contiguous()),
        ((16, 16, 3, 1, 1), INPUT.double()),
    ],
    ids=["stride", "kernel", "dilation", "1x1", "contiguous", "float64"],
)
def test_layers_that_take_another_path_pack_nothing(arguments, input):
    layer = FusedConv2d(*arguments).to(input.dtype)

    with torch.no_grad():
        layer(input)

    assert packed_weight_bytes(layer) == 0


def test_a_layer_regrouped_packs_again():
    layer = _make_layer("grouped")
    with torch.no_grad():
        layer.groups = 1
        layer(INPUT[:, :8].contiguous(memory_format=torch.channels_last))
        layer.groups = 2

    _assert_current(layer)


def test_autocast_packs_nothing():
    layer = _make_layer()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        layer(INPUT)

    assert packed_weight_bytes(layer) == 0


def test_the_memory_of_a_network_is_the_sum_of_its_layers():
    network = torch.nn.Sequential(FusedConv2d(16, 16, 3, padding=1), _make_layer())
    assert packed_weight_bytes(network) == 0

    with torch.no_grad():
        network(INPUT)

    assert packed_weight_bytes(network) == 4 * 36 * 16 * 16 + PACKED_BYTES


def test_a_thread_that_edits_the_weight_leaves_no_stale_copy():
    layer = FusedConv2d(64, 64, 3, padding=1, bias=False)
    ones = torch.ones(1, 64, 8, 8).to(memory_format=torch.channels_last)
    values = [torch.full_like(layer.weight, value) for value in (1.0, 2.0)]
    layer.weight.data.copy_(values[0])
    with torch.no_grad():
        unit = layer(ones)
    for _ in range(30):
        layer.cache = ops.LayerCache()
        start = threading.Barrier(2)

        def edit(start=start):
            start.wait()
            for value in (values[1], values[0], values[1]):
                layer.weight.data.copy_(value)

        editor = threading.Thread(target=edit)
        editor.start()
        start.wait()
        with torch.no_grad():
            during = [layer(ones) for _ in range(2)]
        editor.join()

        # Every value of the weight is read as 1 or as 2.
        for output in during:
            assert (output >= 0.999 * unit).all()
            assert (output <= 2.001 * unit).all()
        with torch.no_grad():
            for scale in (2, 1):
                layer.weight.data.copy_(values[scale - 1])
                assert torch.allclose(layer(ones), scale * unit, rtol=1e-5)


def test_threads_that_share_a_layer_compute_the_same():
    layer = _make_layer()
    expected = _expected(layer)
    errors = []

    def run():
        with torch.inference_mode():
            for _ in range(20):
                layer.cache = ops.LayerCache()
                errors.append((layer(INPUT) - expected).abs().max().item())

    workers = [threading.Thread(target=run) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(errors) == 80
    assert max(errors) <= 1e-5 * expected.abs().max().item()
