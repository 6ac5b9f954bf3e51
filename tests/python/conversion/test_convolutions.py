import pytest
import torch
from ghostsr_ext.conversion.convolutions import trace
from torch import nn
from torch.nn import functional


class Swish(nn.Module):
    def forward(self, features):
        return features * torch.sigmoid(features)


class Blur(nn.Module):
    def forward(self, features):
        return functional.avg_pool2d(features, 3, 1, 1)


class Followed(nn.Module):
    """A convolution and something behind it."""

    def __init__(self, follow, inner=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = inner
        self.follow = follow
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image):
        return self.last(self.follow(self.conv(image)))


def _found(model):
    return trace(model.eval(), torch.rand(1, 3, 8, 8)).called[0].activations


SLOPES = torch.tensor([0.1, -0.2, 0.3, 2.0])


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2, inplace=True),
        nn.PReLU(4),
        nn.GELU(),
        nn.Hardswish(),
        Swish(),
        nn.Sequential(nn.Identity(), nn.BatchNorm2d(4), nn.ReLU()),
        torch.relu,
        lambda maps: maps.relu_(),
        lambda maps: functional.leaky_relu(maps, negative_slope=0.3),
        lambda maps: functional.prelu(maps, SLOPES),
        lambda maps: maps.clamp(min=0),
        lambda maps: torch.tanh(functional.silu(maps)),
    ],
)
def test_what_is_applied_to_an_output_is_found_whatever_applies_it(activation):
    inner = activation if isinstance(activation, nn.Module) else None
    [found] = _found(Followed(activation, inner))
    maps = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(found(maps.clone()), activation(maps.clone()))


@pytest.mark.parametrize(
    "follow",
    [
        lambda maps: maps,
        lambda maps: torch.relu(maps) + maps,
        lambda maps: maps * torch.sigmoid(maps.mean(dim=(2, 3), keepdim=True)),
        lambda maps: functional.pad(torch.relu(maps[..., 1:-1, 1:-1]), [1, 1, 1, 1]),
        Blur(),
        nn.Softmax2d(),
        nn.InstanceNorm2d(4),
    ],
)
def test_an_output_that_is_read_otherwise_has_no_activation(follow):
    inner = follow if isinstance(follow, nn.Module) else None
    assert _found(Followed(follow, inner)) == [None]


def test_a_skip_ends_what_counts_as_the_activation():
    def follow(maps):
        activated = torch.relu(maps)
        return torch.tanh(activated) + activated

    [found] = _found(Followed(follow))
    maps = torch.randn(1, 4, 5, 5)
    assert torch.equal(found(maps), torch.relu(maps))


def test_every_use_has_its_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, image):
            return torch.tanh(self.conv(torch.relu(self.conv(image))))

    first, second = _found(Twice())
    maps = torch.randn(1, 3, 4, 4)
    assert torch.equal(first(maps), torch.relu(maps))
    assert torch.equal(second(maps), torch.tanh(maps))


def test_the_smallest_side_of_an_output_is_known():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.squeeze = nn.Conv2d(4, 4, 1)

        def forward(self, image):
            features = self.first(image)
            return features * self.squeeze(features.mean(dim=(2, 3), keepdim=True)).sigmoid()

    called = trace(Attention(), torch.rand(1, 3, 8, 12)).called
    assert [entry.side for entry in called] == [8, 1]


def _reads(model):
    return functional.conv2d(torch.zeros(1, 3, 4, 4), model.conv.weight).sum()


def _writes(model):
    with torch.no_grad():
        model.conv.weight.copy_(model.conv.weight * 1)
    return 0


def _assigns(model):
    model.conv.weight.data = model.conv.weight.data * 1
    return 0


def _replaces(model):
    model.conv.weight = nn.Parameter(model.conv.weight.detach().clone())
    return 0


def _asks(model):
    return torch.zeros((), dtype=model.conv.weight.dtype, device=model.conv.weight.device)


@pytest.mark.parametrize(
    ("handle", "handled"),
    [(_reads, True), (_writes, True), (_assigns, True), (_replaces, True), (_asks, False)],
)
def test_a_forward_that_reads_or_writes_a_weight_is_noticed(handle, handled):
    class Handling(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, image):
            return handle(self) + self.conv(image)

    [entry] = trace(Handling(), torch.rand(1, 3, 8, 8)).called
    assert entry.handled == handled
