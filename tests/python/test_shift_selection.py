import pytest
import torch
from ghostsr_ext.shift_selection import choose_by_reinmax, draw_rows, gumbel_noise

# Features that three candidates would give, and what is wanted of their sum with the rest.
FEATURES = torch.tensor([[0.3, -1.0, 0.5], [1.2, 0.4, -0.7], [-0.6, 0.8, 0.9]], dtype=torch.float64)
TARGET = torch.tensor([0.2, 0.1, 0.4], dtype=torch.float64)


def loss_of(choice):
    """Loss of a choice [1, 3], with the operators' gradient: that of the softmax in its place."""
    soft = choice.softmax(dim=1)
    weights = choice.detach() + soft - soft.detach()
    return ((weights @ FEATURES - TARGET) ** 2).sum()


def noise_that_chooses(candidate):
    return torch.nn.functional.one_hot(torch.tensor([candidate]), 3).double() * 100


def reinmax_gradient(logits, candidate, tau=1.0):
    leaf = logits.clone().requires_grad_()
    drawn = torch.ones(1, 1, dtype=torch.bool)
    loss_of(choose_by_reinmax(leaf, noise_that_chooses(candidate), tau, drawn)).backward()
    return leaf.grad


def straight_through_gradient(logits, candidate):
    leaf = logits.clone().requires_grad_()
    soft = leaf.softmax(dim=1)
    hard = torch.nn.functional.one_hot(torch.tensor([candidate]), 3).double()
    (((hard + soft - soft.detach()) @ FEATURES - TARGET) ** 2).sum().backward()
    return leaf.grad


def expected(gradient, logits, tau=1.0):
    probability = (logits / tau).softmax(dim=1)[0]
    return sum(probability[k] * gradient(logits, k) for k in range(3))


@pytest.mark.parametrize("tau", [1.0, 0.4])
def test_reinmax_is_on_average_the_gradient_of_the_expected_quadratic_loss(tau):
    logits = torch.tensor([[0.5, -0.3, 0.1]], dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    losses = torch.stack([((FEATURES[k] - TARGET) ** 2).sum() for k in range(3)])
    ((leaf / tau).softmax(dim=1)[0] * losses).sum().backward()

    gradient = expected(lambda at, k: reinmax_gradient(at, k, tau), logits, tau)

    torch.testing.assert_close(gradient, leaf.grad)


def test_straight_through_is_on_average_the_gradient_of_the_mixture():
    logits = torch.tensor([[0.5, -0.3, 0.1]], dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    ((leaf.softmax(dim=1) @ FEATURES - TARGET) ** 2).sum().backward()

    gradient = expected(straight_through_gradient, logits)

    torch.testing.assert_close(gradient, leaf.grad)


def test_the_choice_is_one_hot_and_the_largest_with_its_noise():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    drawn = torch.ones(2, 1, dtype=torch.bool)
    noise = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])

    assert choose_by_reinmax(logits, torch.zeros(2, 3), 1.0, drawn).tolist() == [
        [0, 1, 0],
        [1, 0, 0],
    ]
    assert choose_by_reinmax(logits, noise, 1.0, drawn).tolist() == [[0, 1, 0], [0, 0, 1]]
    # The noise is that of a draw from softmax(logits / tau).
    assert choose_by_reinmax(logits, noise, 0.25, drawn).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_rows_that_did_not_draw_get_no_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    drawn = torch.tensor([[True], [False]])
    choice = choose_by_reinmax(logits, torch.zeros(2, 3), 1.0, drawn)

    (choice * torch.tensor([1.0, 2.0, 4.0])).sum().backward()

    assert logits.grad[0].abs().min() > 0
    assert logits.grad[1].tolist() == [0, 0, 0]


def test_rows_draw_with_the_chance_that_is_asked_for():
    logits = torch.zeros(100_000, 9)

    assert draw_rows(logits, 0.1).float().mean().item() == pytest.approx(0.1, abs=0.005)
    assert draw_rows(logits, 1.0).all()
    assert not draw_rows(logits, 0.0).any()


def test_gumbel_noise_has_the_distribution_of_gumbel():
    noise = gumbel_noise(torch.empty(200, 1000))

    for quantile in (0.01, 0.25, 0.5, 0.75, 0.99):
        expected = -torch.log(-torch.log(torch.tensor(quantile)))
        share = (noise <= expected).float().mean().item()
        assert share == pytest.approx(quantile, abs=0.005)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.03)


def test_gumbel_noise_selects_candidates_by_their_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(100_000, 4)

    chosen = (logits + gumbel_noise(logits)).argmax(dim=1)

    shares = torch.bincount(chosen, minlength=4) / len(chosen)
    torch.testing.assert_close(shares, logits[0].softmax(dim=0), rtol=0, atol=0.006)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gumbel_noise_is_finite_in_every_dtype(dtype, monkeypatch):
    extremes = torch.tensor([0.0, 1.0 - 2**-24, 1.0, 1e-45])
    monkeypatch.setattr(torch, "rand_like", lambda *_, **__: extremes)

    noise = gumbel_noise(torch.empty(4, dtype=dtype))

    assert noise.dtype == dtype
    assert bool(noise.isfinite().all())
