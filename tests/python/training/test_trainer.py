import copy

import pytest
import torch
from ghostsr_ext.models import create_model
from ghostsr_ext.nn import GhostConv2d
from ghostsr_ext.training.data import Batch
from ghostsr_ext.training.distributed import Processes
from ghostsr_ext.training.shifts import learned, logits_of, start_shifts
from ghostsr_ext.training.trainer import Trainer

CPU = torch.device("cpu")


def network(seed=0):
    torch.manual_seed(seed)
    return create_model("edsr_baseline", blocks=1, features=4, value_range=1.0)


def ghost_network(config):
    model = network()
    for name in ("conv1", "conv2"):
        dense = getattr(model.body[0], name)
        layer = GhostConv2d(4, 4, 3, padding=1, activation=dense.activation)
        setattr(model.body[0], name, layer)
    start_shifts(model, config.shifts)
    return model


def batch(size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        torch.rand(size, 3, 8, 8, generator=generator),
        torch.rand(size, 3, 16, 16, generator=generator),
        2,
    )


def parts_of(whole, count):
    return [
        Batch(low, high, whole.scale)
        for low, high in zip(whole.inputs.chunk(count), whole.targets.chunk(count), strict=True)
    ]


def trainer(config, model=None, teacher=None):
    return Trainer(config, network() if model is None else model, teacher, CPU, Processes())


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_step_is_that_of_the_optimiser_on_the_mean_difference(make_config):
    model, twin = network(), network()
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    data = batch()
    loss = (twin(data.inputs) - data.targets).abs().mean()
    loss.backward()
    optimizer.step()

    result = trainer(make_config(), model).train_step([data])

    assert result.loss.item() == pytest.approx(loss.item())
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-5, atol=1e-7)


def test_a_batch_in_parts_is_the_same_step(make_config):
    whole = trainer(make_config(), ghost_network(make_config()))
    divided_config = make_config(training={"accumulation": 2})
    divided = trainer(divided_config, ghost_network(divided_config))

    for seed in range(3):
        first = whole.train_step([batch(seed=seed)])
        second = divided.train_step(parts_of(batch(seed=seed), 2))
        torch.testing.assert_close(first.loss, second.loss)

    torch.testing.assert_close(weights(whole.model), weights(divided.model), rtol=1e-4, atol=1e-5)


def test_a_batch_in_parts_gives_the_eigenbasis_of_the_whole(make_config):
    whole = trainer(make_config(training={"optimizer": "eigenbasis"}))
    divided = trainer(make_config(training={"optimizer": "eigenbasis", "accumulation": 2}))
    data = batch()
    whole.train_step([data])
    divided.train_step(parts_of(data, 2))
    moments = [
        [
            state["moment"]
            for state in made.state()["optimizer"]["state"].values()
            if "moment" in state
        ]
        for made in (whole, divided)
    ]
    assert len(moments[0]) == len(moments[1]) > 0
    for first, second in zip(*moments, strict=True):
        torch.testing.assert_close(first, second)


def test_a_network_of_several_scales_trains_in_the_eigenbasis_of_each_head(make_config):
    torch.manual_seed(0)
    model = create_model("carn", scale=(2, 3), features=8)
    before = copy.deepcopy(model.state_dict())
    trained = trainer(make_config(training={"optimizer": "eigenbasis", "lr": 1e-2}), model)
    for scale in (2, 3):
        low = torch.rand(2, 3, 8, 8)
        trained.train_step([Batch(low, torch.rand(2, 3, 8 * scale, 8 * scale), scale)])
    assert all(bool((value != before[name]).any()) for name, value in model.named_parameters())


def test_the_gradient_is_clipped_and_its_norm_reported_before(make_config):
    config = make_config(training={"clip_gradient": 1e-3})
    clipped = trainer(config)

    result = clipped.train_step([batch()])

    norm = torch.cat([parameter.grad.flatten() for parameter in clipped.model.parameters()]).norm()
    assert result.gradient_norm > 1e-3
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_nan_leaves_the_weights_and_the_step_as_they_were(make_config):
    trained = trainer(make_config())
    before = weights(trained.model).clone()
    data = batch()
    data.inputs[0, 0, 0, 0] = float("nan")

    result = trained.train_step([data])

    assert not result.usable
    assert trained.step == 0
    assert torch.equal(weights(trained.model), before)


def test_the_average_follows_its_closed_form(make_config):
    trained = trainer(make_config(training={"ema_decay": 0.25}))
    trained.train_step([batch()])
    expected = weights(trained.model).clone()
    for step in range(1, 4):
        trained.train_step([batch(seed=step)])
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(trained.model)

    torch.testing.assert_close(weights(trained.result), expected, rtol=1e-5, atol=1e-7)


def test_the_average_has_the_buffers_of_the_network(make_config):
    model = network()
    model.register_buffer("seen", torch.zeros(2))
    trained = trainer(make_config(training={"ema_decay": 0.9}), model)
    model.seen += 3

    trained.train_step([batch()])

    assert trained.result.seen.tolist() == [3, 3]


def test_logits_learn_at_their_own_rate_and_move(make_config):
    config = make_config(shifts={"lr_factor": 50.0, "freeze_at": 1.0})
    trained = trainer(config, ghost_network(config))
    before = {name: logits.clone() for name, logits in logits_of(trained.model).items()}

    trained.train_step([batch()])

    for name, logits in logits_of(trained.model).items():
        moved = (logits - before[name]).abs().max().item()
        assert moved == pytest.approx(50 * 1e-3, rel=0.05)


def test_shifts_freeze_at_their_step_and_the_average_takes_the_same(make_config):
    config = make_config(shifts={"freeze_at": 0.25}, training={"ema_decay": 0.9})
    trained = trainer(config, ghost_network(config))
    for _ in range(2):
        trained.train_step([batch()])
        assert learned(trained.model)
    chosen = trained.model.body[0].conv1.selected_shift()

    trained.train_step([batch()])

    assert not learned(trained.model)
    assert not learned(trained.result)
    assert torch.equal(trained.model.body[0].conv1.shift, chosen)
    assert torch.equal(trained.result.body[0].conv1.shift, chosen)


def test_the_temperature_falls_with_the_steps(make_config):
    config = make_config(shifts={"tau_start": 2.0, "tau_end": 0.5, "freeze_at": 1.0})
    trained = trainer(config, ghost_network(config))
    seen = []
    for _ in range(3):
        trained.train_step([batch()])
        seen.append(trained.model.body[0].conv1.tau)

    assert seen[0] == 2.0
    assert seen[0] > seen[1] > seen[2] > 0.5


def test_a_compiled_network_sees_few_temperatures(make_config):
    config = make_config(training={"compile": True, "steps": 100}, shifts={"freeze_at": 0.8})
    trained = trainer(config, ghost_network(config))
    seen = []
    for trained.step in range(80):
        seen.append(trained.tau)

    assert len(set(seen)) == 4
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 1.0


def test_the_output_is_drawn_to_the_teacher(make_config):
    config = make_config(distillation={"target": 0.0, "output": 1.0})
    teacher = network(seed=1)
    trained = trainer(config, teacher=teacher)
    data = batch()

    with torch.no_grad():
        expected = (trained.model(data.inputs) - teacher(data.inputs)).abs().mean().item()

    assert trained.train_step([data]).loss.item() == pytest.approx(expected, rel=1e-5)


def test_features_of_converted_layers_are_drawn_to_the_teacher(make_config):
    config = make_config(distillation={"target": 0.0, "output": 0.0, "features": 1.0})
    model = ghost_network(config)
    fixed = config.shifts.model_copy(update={"mode": "fixed"})
    frozen = config.model_copy(update={"shifts": fixed})
    start_shifts(model, frozen.shifts)
    teacher = network(seed=1)
    data = batch()
    seen = {}
    for name, net in (("model", model), ("teacher", teacher)):
        layers = [net.body[0].conv1, net.body[0].conv2]
        hooks = [
            layer.register_forward_hook(lambda *call, key=(name, i): seen.__setitem__(key, call[2]))
            for i, layer in enumerate(layers)
        ]
        with torch.no_grad():
            net(data.inputs)
        for hook in hooks:
            hook.remove()
    expected = sum(
        ((seen["model", i] - seen["teacher", i]) ** 2).mean() / (seen["teacher", i] ** 2).mean()
        for i in range(2)
    )

    loss = trainer(frozen, model, teacher).train_step([data]).loss

    assert loss.item() == pytest.approx(expected.item() / 2, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "eigenbasis"])
@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_restored_trainer_goes_on_with_the_same_bits(make_config, frozen, average, optimizer):
    config = make_config(
        shifts={"freeze_at": 0.0 if frozen else 1.0},
        training={"ema_decay": average, "optimizer": optimizer},
    )
    trained = trainer(config, ghost_network(config))
    for seed in range(2):
        trained.train_step([batch(seed=seed)])
    state = copy.deepcopy(trained.state())
    trained.train_step([batch(seed=2)])

    restored = trainer(config, ghost_network(config))
    restored.load_state(state)
    restored.train_step([batch(seed=2)])

    assert restored.step == trained.step == 3
    assert restored.lr == trained.lr
    assert torch.equal(weights(restored.model), weights(trained.model))
    assert torch.equal(weights(restored.result), weights(trained.result))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_weights_of_full_precision(make_config, precision):
    config = make_config(training={"precision": precision})
    trained = trainer(config, ghost_network(config))
    data = batch()
    losses = [trained.train_step([data]).loss.item() for _ in range(8)]

    assert weights(trained.model).dtype == torch.float32
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_steps(make_config):
    eager = trainer(make_config(), ghost_network(make_config()))
    config = make_config(training={"compile": True})
    compiled = trainer(config, ghost_network(config))

    for seed in range(3):
        first = eager.train_step([batch(seed=seed)]).loss
        second = compiled.train_step([batch(seed=seed)]).loss
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
