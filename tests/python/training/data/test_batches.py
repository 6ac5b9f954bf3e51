import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from ghostsr_ext.imaging import imresize, luma
from ghostsr_ext.training.data import BatchPlan, PatchBatches, PictureStore
from ghostsr_ext.training.data.store import write_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

SIZES = ((24, 36), (60, 48), (36, 36))


def make_store(folder, scale=2):
    folder.mkdir()
    pictures = []
    for seed, (rows, columns) in enumerate(SIZES):
        high = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
        pictures.append((str(seed), high, imresize(high, 1 / scale)))
    write_store(folder, scale, pictures)
    return PictureStore(folder)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "x2")


def places(store, patch, scale):
    """Every patch of every small picture in every orientation, by its bytes, and its original."""
    found = {}
    for index in range(len(store)):
        low, high = store.low(index), store.high(index)
        for top in range(low.shape[0] - patch + 1):
            for left in range(low.shape[1] - patch + 1):
                small = low[top : top + patch, left : left + patch]
                large = high[
                    scale * top : scale * (top + patch), scale * left : scale * (left + patch)
                ]
                for turn in range(4):
                    for flip in (slice(None), slice(None, None, -1)):
                        key = np.rot90(small, turn)[:, flip].tobytes()
                        found[key] = (index, turn, flip.step, np.rot90(large, turn)[:, flip])
    return found


def test_a_patch_lies_over_its_original_in_each_of_the_eight_orientations(store):
    batches = PatchBatches([store], BatchPlan(seed=0, batch_size=8, patch=5))
    known = places(store, 5, 2)
    seen = set()

    for number in range(30):
        batch = batches[number]
        for low, high in zip(batch.inputs, batch.targets, strict=True):
            key = (low.permute(1, 2, 0) * 255).round().byte().numpy().tobytes()
            index, turn, flip, original = known[key]
            expected = torch.from_numpy(original.copy()).permute(2, 0, 1) / 255
            torch.testing.assert_close(high, expected)
            seen.add((index, turn, flip))

    assert len(seen) == 3 * 8


def test_without_augmentation_patches_stay_upright(store):
    batches = PatchBatches([store], BatchPlan(seed=0, batch_size=20, patch=5, augment=False))
    known = places(store, 5, 2)

    for low in batches[0].inputs:
        key = (low.permute(1, 2, 0) * 255).round().byte().numpy().tobytes()
        assert known[key][1:3] == (0, None)


def test_recolored_patches_lie_over_originals_in_the_same_colors(store):
    plan = BatchPlan(seed=0, batch_size=60, patch=5, augment=False, recolor=True)
    known = places(store, 5, 2)
    orders = list(itertools.permutations(range(3)))
    seen = {}

    for batch in (PatchBatches([store], plan)[number] for number in range(5)):
        for low, high in zip(batch.inputs, batch.targets, strict=True):
            pixels = (low.permute(1, 2, 0) * 255).round().byte().numpy()
            (key, colors) = next(
                (before.tobytes(), (order, negative))
                for negative in (False, True)
                for order in orders
                if (before := _first_colors(pixels, order, negative)).tobytes() in known
            )
            target = _first_colors((high.permute(1, 2, 0) * 255).round().byte().numpy(), *colors)
            assert np.array_equal(target, known[key][3])
            seen[colors] = seen.get(colors, 0) + 1

    assert len(seen) == 12
    assert 100 < seen[orders[0], False] < 166  # A third, and a sixth of another third, of 300.


def _first_colors(pixels, order, negative):
    before = 255 - pixels if negative else pixels
    return np.ascontiguousarray(before[..., np.argsort(order)])


@pytest.mark.parametrize("color", ["y", "rgb"])
def test_recolored_patches_are_enlarged_in_their_new_colors(store, color):
    plan = BatchPlan(seed=0, batch_size=9, patch=12, recolor=True)

    small = PatchBatches([store], plan)[0].inputs
    large = PatchBatches([store], replace(plan, color=color, enlarged=True))[0].inputs

    for low, high in zip(small, large, strict=True):
        values = low.permute(1, 2, 0).double().numpy() * 255
        expected = imresize(luma(values)[..., None] if color == "y" else values, 2) / 255
        # Beyond the patch, enlargement sees the picture's own pixels.
        inside = high.permute(1, 2, 0).numpy()[8:-8, 8:-8]
        np.testing.assert_allclose(inside, expected[8:-8, 8:-8], atol=1e-6)


def test_a_batch_depends_on_seed_and_number_alone(store):
    def batch(seed, number):
        return PatchBatches([store], BatchPlan(seed=seed, batch_size=4, patch=6))[number].inputs

    assert torch.equal(batch(0, 5), batch(0, 5))
    assert not torch.equal(batch(0, 5), batch(0, 6))
    assert not torch.equal(batch(0, 5), batch(1, 5))


def test_processes_and_parts_share_the_patches_of_one_batch(store):
    whole = PatchBatches([store], BatchPlan(seed=3, batch_size=8, patch=6))[2].inputs
    shares = []
    for rank in range(2):
        plan = BatchPlan(seed=3, batch_size=8, patch=6, rank=rank, world_size=2, accumulation=2)
        batches = PatchBatches([store], plan)
        shares += [batches[2 * 2 + part].inputs for part in range(2)]

    assert torch.equal(torch.cat(shares), whole)


def test_worker_processes_cut_the_same_patches(store):
    batches = PatchBatches([store], BatchPlan(seed=0, batch_size=2, patch=6))

    loader = DataLoader(batches, batch_size=None, sampler=range(3, 9), num_workers=2)

    for number, batch in zip(range(3, 9), loader, strict=True):
        assert torch.equal(batch.inputs, batches[number].inputs)


def test_patches_have_the_fast_layout(store):
    batch = PatchBatches([store], BatchPlan(seed=0, batch_size=2, patch=6))[0]

    assert batch.inputs.shape == (2, 3, 6, 6)
    assert batch.targets.shape == (2, 3, 12, 12)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert batch.inputs.dtype == batch.targets.dtype == torch.float32
    assert 0 <= batch.inputs.min() <= batch.inputs.max() <= 1


def test_by_area_large_pictures_are_seen_more_often(store):
    def counts(sampling):
        batches = PatchBatches(
            [store], BatchPlan(seed=0, batch_size=900, patch=5, augment=False, sampling=sampling)
        )
        known = places(store, 5, 2)
        keys = (batches[0].inputs.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        return np.bincount([known[key.tobytes()][0] for key in keys], minlength=3) / 900

    areas = np.array([rows * columns for rows, columns in SIZES])
    np.testing.assert_allclose(counts("area"), areas / areas.sum(), atol=0.05)
    np.testing.assert_allclose(counts("uniform"), np.full(3, 1 / 3), atol=0.05)


def test_enlarged_patches_are_cut_from_the_enlarged_picture(store):
    plan = BatchPlan(seed=0, batch_size=30, patch=6, augment=False, enlarged=True, color="y")
    batch = PatchBatches([store], plan)[0]
    plain = PatchBatches([store], BatchPlan(seed=0, batch_size=30, patch=6, augment=False))[0]
    known = places(store, 6, 2)
    large = [imresize(luma(store.low(index)), 2) for index in range(len(store))]

    assert batch.inputs.shape == batch.targets.shape == (30, 1, 12, 12)
    for sample in range(30):
        key = (plain.inputs[sample].permute(1, 2, 0) * 255).round().byte().numpy().tobytes()
        index = known[key][0]
        windows = np.lib.stride_tricks.sliding_window_view(large[index], (12, 12))[::2, ::2]
        distance = np.abs(windows - 255 * batch.inputs[sample, 0].numpy()).max(axis=(2, 3))
        assert distance.min() < 1e-3


def test_each_step_is_of_one_scale_and_all_scales_come(tmp_path, store):
    batches = PatchBatches(
        [store, make_store(tmp_path / "x3", 3)], BatchPlan(seed=0, batch_size=2, patch=6)
    )

    scales = [batches[number].scale for number in range(20)]

    assert set(scales) == {2, 3}
    assert batches[0].targets.shape[-1] == 6 * scales[0]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    world_size=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    part_size=st.integers(1, 3),
    step=st.integers(0, 10**9),
    seed=st.integers(0, 2**63 - 1),
)
def test_however_a_batch_is_divided_it_is_the_same_batch(
    store, world_size, accumulation, part_size, step, seed
):
    size = world_size * accumulation * part_size

    def shares(world_size, accumulation):
        for rank in range(world_size):
            plan = BatchPlan(
                seed=seed,
                batch_size=size,
                patch=4,
                rank=rank,
                world_size=world_size,
                accumulation=accumulation,
            )
            batches = PatchBatches([store], plan)
            for part in range(accumulation):
                yield batches[step * accumulation + part].targets

    divided = torch.cat(list(shares(world_size, accumulation)))
    assert torch.equal(divided, torch.cat(list(shares(1, 1))))


def test_of_several_candidates_the_patch_of_most_detail_is_taken(store):
    def detail(candidates):
        plan = BatchPlan(seed=0, batch_size=64, patch=4, candidates=candidates)
        inputs = PatchBatches([store], plan)[0].inputs[:, 1]
        across, down = inputs.diff(dim=2).square(), inputs.diff(dim=1).square()
        return float(across.mean() + down.mean())

    assert detail(1) < detail(4) < detail(64)
