import pytest
import torch
from torch import nn

from fedtsd.clients import local
from fedtsd.clients.dense import Dense, Sink, loss_gradient
from fedtsd.modules import Dropout


def network() -> nn.Sequential:
    """y = 3 relu(2 x - 1) + 5, after a flattening."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), (2.0, -1.0, 3.0, 5.0), strict=True):
            parameter.fill_(value)
    return net


def gradients(net: nn.Sequential, beta: float, alpha: float, start: float) -> Sink:
    targets = {name: torch.full_like(p, start) for name, p in net.named_parameters()}
    return Sink(targets, beta, alpha)


@torch.no_grad()
def test_gradients_by_hand() -> None:
    net = network()
    dense = Dense(net)
    assert dense.body == [net[0]]
    sink = gradients(net, beta=0.0, alpha=1.0, start=torch.nan)
    # Hidden values 2 * 4 - 1 = 7 and, cut off, 2 * 0 - 1 < 0.
    assert dense.forward(torch.tensor([[4.0], [0.0]])).tolist() == [[26.0], [5.0]]
    below = dense.backward(torch.tensor([[1.0], [10.0]]), sink, through=True)
    assert below.tolist() == [[6.0], [0.0]]
    found = {name: target.item() for name, target in sink.targets.items()}
    assert found == {"1.weight": 3 * 4, "1.bias": 3, "3.weight": 7, "3.bias": 11}


@torch.no_grad()
def test_gradients_are_added_to_what_is_there() -> None:
    net = network()
    dense, sink = Dense(net), gradients(net, beta=0.5, alpha=-2.0, start=8.0)
    dense.forward(torch.tensor([[4.0]]))
    dense.backward(torch.tensor([[1.0]]), sink, through=False)
    found = {name: target.item() for name, target in sink.targets.items()}
    assert found == {"1.weight": 4 - 24, "1.bias": 4 - 6, "3.weight": 4 - 14, "3.bias": 4 - 2}


@torch.no_grad()
def test_weights_may_be_their_own_targets() -> None:
    net = network()
    dense = Dense(net)
    sink = Sink({name: p.detach() for name, p in net.named_parameters()}, 1.0, -1.0)
    dense.forward(torch.tensor([[4.0]]))
    dense.backward(torch.tensor([[1.0]]), sink, through=False)
    # The first layer's gradient comes from the last layer's weight before it moved.
    assert [p.item() for p in net.parameters()] == [2 - 12, -1 - 3, 3 - 7, 5 - 1]


@torch.no_grad()
def test_only_targets_move() -> None:
    net = network()
    dense = Dense(net)
    sink = Sink({"3.bias": net[3].bias.detach()}, 1.0, -1.0)
    dense.forward(torch.tensor([[4.0]]))
    dense.backward(torch.tensor([[1.0]]), sink, through=False)
    assert [p.item() for p in net.parameters()] == [2, -1, 3, 4]


@pytest.mark.parametrize(
    ("modules", "start"),
    [
        ([nn.Linear(1, 1), nn.LayerNorm(1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU()], 3),
        ([nn.ReLU(), Dropout(0.5, 1), nn.Linear(1, 1)], 2),
        ([nn.Linear(1, 1), nn.Sigmoid()], 2),
        ([], 0),
    ],
)
def test_the_dense_end_starts_with_a_dense_layer(modules, start) -> None:
    assert Dense(nn.Sequential(*modules)).body == modules[:start]


@pytest.mark.parametrize("labels", [torch.tensor([2, 0, 1, 2]), torch.tensor([0.5, -1.0, 2.0, 3])])
def test_the_gradient_of_the_loss_is_that_of_autograd(labels) -> None:
    width = 1 if labels.is_floating_point() else 3
    rng = torch.Generator().manual_seed(0)
    outputs = (3 * torch.randn(4, width, generator=rng)).requires_grad_()
    (expected,) = torch.autograd.grad(local.loss_of(outputs, labels), outputs)
    with torch.no_grad():
        torch.testing.assert_close(loss_gradient(outputs, labels), expected)
