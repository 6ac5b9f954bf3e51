"""The plain-torch twins, which all native operators are compared with, against closed forms."""

import pytest
import torch
from ghostsr_ext import reference
from torch.nn import functional


def _moved(features, dy, dx):
    """features[y + dy, x + dx] by padding with zeros and cutting out."""
    radius = max(abs(dy), abs(dx))
    padded = functional.pad(features, (radius,) * 4)
    height, width = features.shape[-2:]
    top, left = radius + dy, radius + dx
    return padded[..., top : top + height, left : left + width]


def test_candidates_run_through_the_window_row_by_row():
    assert reference.candidate_shifts(9).tolist() == [
        [-1, -1],
        [-1, 0],
        [-1, 1],
        [0, -1],
        [0, 0],
        [0, 1],
        [1, -1],
        [1, 0],
        [1, 1],
    ]


@pytest.mark.parametrize("max_shift", range(8))
def test_candidate_k_is_the_shift_of_its_definition(max_shift):
    window = 2 * max_shift + 1

    shifts = reference.candidate_shifts(window**2)

    for candidate, (dy, dx) in enumerate(shifts.tolist()):
        assert candidate == (dy + max_shift) * window + dx + max_shift


@pytest.mark.parametrize("candidates", [0, 2, 4, 8, 16, 36])
def test_candidates_must_be_an_odd_square(candidates):
    with pytest.raises(ValueError, match=f"logits: found {candidates} candidates"):
        reference.candidate_shifts(candidates)


def test_a_pixel_reads_from_where_its_shift_points():
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 2, 1] = 5.0

    moved = reference.move(features, torch.tensor([[1, -1]]))

    assert moved[0, 0, 1, 2] == 5.0
    assert moved.sum() == 5.0


@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 9)])
def test_moving_is_padding_and_cutting(size):
    features = torch.randn(2, 1, *size)

    for dy, dx in reference.candidate_shifts(15**2).tolist():
        moved = reference.move(features, torch.tensor([[dy, dx]]))
        assert torch.equal(moved, _moved(features, dy, dx))


def test_shift_concat_follows_its_formula():
    intrinsic = torch.randn(2, 3, 4, 5)
    source, shift = torch.tensor([2, 0]), torch.tensor([[1, -1], [0, 1]])
    gain, ghost_bias = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    order = torch.tensor([4, 0, 3, 1, 2])
    residual = torch.randn(2, 5, 4, 5)

    output = reference.shift_concat(
        intrinsic,
        source,
        shift,
        gain=gain,
        ghost_bias=ghost_bias,
        order=order,
        activation="relu",
        residual=residual,
        residual_scale=0.1,
    )

    first = 2.0 * _moved(intrinsic[:, 2], 1, -1) + 0.5
    second = -1.0 * _moved(intrinsic[:, 0], 0, 1) + 3.0
    channels = [second, intrinsic[:, 0], first, intrinsic[:, 1], intrinsic[:, 2]]
    expected = (residual + 0.1 * torch.stack(channels, dim=1)).clamp_min(0)
    torch.testing.assert_close(output, expected)


def test_zeros_come_in_from_outside_after_the_bias_of_the_convolution():
    input, weight = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 1, 1)

    output = reference.ghost_conv(
        input, weight, torch.ones(1), torch.tensor([0]), torch.tensor([[1, 0]])
    )

    assert output[0, 1].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_the_written_out_gradient_is_that_of_autograd(activation, residual):
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    leaves = {"intrinsic": draw(2, 3, 5, 4), "gain": draw(4), "ghost_bias": draw(4)}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    tables = {"source": torch.tensor([2, 0, 0, 1]), "order": torch.randperm(7)}
    shift = torch.tensor([[1, -1], [0, 2], [-2, 0], [0, 0]])
    options = {"activation": activation, "residual_scale": 0.3}
    output = reference.shift_concat(
        **leaves, **tables, shift=shift, **options, residual=draw(2, 7, 5, 4) if residual else None
    )
    grad_output = draw(2, 7, 5, 4)

    actual = reference.shift_concat_backward(
        grad_output,
        **tables,
        shift=shift,
        **{name: leaf.detach() for name, leaf in leaves.items()},
        output=output.detach() if residual else None,
        **options,
    )

    expected = torch.autograd.grad(output, list(leaves.values()), grad_output)
    for ours, autograd in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, autograd)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_written_out_selection_gradient_is_that_of_the_materialised_mixture(rows):
    intrinsic = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    logits = torch.randn(rows, 9, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(rows, 9, dtype=torch.float64)
    source = torch.tensor([3, 1, 1])
    grad_output = torch.randn(2, 7, 5, 6, dtype=torch.float64)
    # A 1x1 identity convolution leaves the intrinsic map as it is.
    output = reference.ghost_conv_learned(
        intrinsic,
        torch.eye(4, dtype=torch.float64).view(4, 4, 1, 1),
        None,
        source,
        logits,
        noise,
        0.5,
        activation="relu",
    )
    (expected,) = torch.autograd.grad(output, logits, grad_output)

    _, actual = reference.shift_selection_backward(
        grad_output, intrinsic, source, logits.detach(), noise, 0.5, activation="relu"
    )

    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("rows", [1, 3])
def test_learned_shifts_have_the_value_of_the_selected_ones(rows):
    input = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    source = torch.tensor([3, 1, 1])
    logits, noise = torch.randn(2, rows, 25, dtype=torch.float64)

    learned = reference.ghost_conv_learned(input, weight, None, source, logits, noise, 0.5)

    shift = reference.select_shift(logits, noise, 0.5, 3)
    torch.testing.assert_close(learned, reference.ghost_conv(input, weight, None, source, shift))


def test_noise_decides_between_close_logits():
    logits, noise = torch.zeros(2, 9), torch.zeros(2, 9)
    logits[:, 4] = 0.1
    noise[1, 8] = 5.0

    assert reference.select_shift(logits, noise, 1.0, 2).tolist() == [[0, 0], [1, 1]]
