import itertools

import pytest
import torch
from torch import nn

from fedtsd.bench.central import orders, pooled, steps_of, training_flops


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def test_operations_of_a_step_are_those_counted_by_hand() -> None:
    model = mlp(4, 5, 3)
    flops = training_flops(model, torch.ones(7, 4), torch.zeros(7, dtype=torch.int64))
    # Forward 7x4 times 4x5 and 7x5 times 5x3; backward a product for each weight, and one for the
    # hidden units, none for the inputs. A product of m x k and k x n is 2 m k n.
    forward = 2 * 7 * 4 * 5 + 2 * 7 * 5 * 3
    assert flops == forward + forward + 2 * 7 * 5 * 3


def test_counting_leaves_no_gradients_behind() -> None:
    model = mlp(4, 5, 3)
    training_flops(model, torch.ones(7, 4), torch.zeros(7, dtype=torch.int64))
    assert all(p.grad is None for p in model.parameters())


def test_an_epoch_takes_every_sample_once_in_whole_batches() -> None:
    batches = list(itertools.islice(orders(13, 4, torch.device("cpu")), 6))
    assert [len(batch) for batch in batches] == [4] * 6
    for epoch in (batches[:3], batches[3:]):
        assert len(set(torch.cat(epoch).tolist())) == 12


def test_all_clients_lie_in_one_tensor(toy) -> None:
    federation = toy(3, size=5)
    inputs, labels = pooled(federation)
    assert (inputs.shape, labels.shape) == ((15, 2), (15,))
    assert torch.equal(inputs[5:10], federation.clients[1].train.inputs)


def test_the_plain_loop_learns(toy, config) -> None:
    torch.manual_seed(0)
    inputs, labels = pooled(toy(4))
    model = nn.Linear(2, 2)
    before = nn.functional.cross_entropy(model(inputs), labels).item()
    steps = steps_of(config("training.batch_size=10"), model, inputs, labels)
    assert sum(steps() for _ in range(5)) == 5 * 20 * 10
    after = nn.functional.cross_entropy(model(inputs), labels).item()
    assert after < before / 2


def test_regressions_are_timed_by_their_own_loss() -> None:
    model = nn.Linear(4, 1)
    flops = training_flops(model, torch.ones(6, 4), torch.ones(6))
    assert flops == pytest.approx(2 * (2 * 6 * 4))
