import copy

import pytest
import torch
from torch import nn

from fedtsd.clients.solvers.per_fedavg import PerFedAvg
from fedtsd.models import Mlp, ResNet8
from fedtsd.training import Phase
from tests.clients.solvers.benches import (
    assert_resumes,
    batches_of,
    classes,
    drawn,
    linear,
    make,
    settings,
    values,
)

WEIGHT = "fc1.weight"


def first_order(alpha: float) -> PerFedAvg:
    return PerFedAvg(alpha, "first_order", 0.1)


def hessian_free(alpha: float, delta: float = 0.1) -> PerFedAvg:
    return PerFedAvg(alpha, "hessian_free", delta)


def gradient(w, batch):
    """Of mean (x w - y)^2, w [1, D]."""
    x, y = batch
    return 2 * (x @ w.T - y[:, None]).T @ x / len(y)


def hessian(batch):
    x, y = batch
    return 2 * x.T @ x / len(y)


def test_a_first_order_step_takes_the_second_gradient_after_the_inner_step() -> None:
    training = settings(batch_size=5, lr=0.05)
    split, network = values(10, 3), linear(3, 1)
    first, second = batches_of(split, training, 1)
    w = network.fc1.weight.detach().clone()
    expected = w - 0.05 * gradient(w - 0.3 * gradient(w, first), second)
    bench = make(first_order(0.3), network, split, training)
    assert first_order(0.3).train(bench) == 10
    torch.testing.assert_close(network.fc1.weight.detach(), expected)


def test_a_hessian_free_step_adds_the_product_with_the_hessian_of_a_third_batch() -> None:
    training = settings(batch_size=5, lr=0.05)
    split, network = values(15, 3), linear(3, 1)
    first, second, third = batches_of(split, training, 1)
    w = network.fc1.weight.detach().clone()
    direction = gradient(w - 0.3 * gradient(w, first), second)
    turned = direction - 0.3 * direction @ hessian(third)
    bench = make(hessian_free(0.3), network, split, training)
    assert hessian_free(0.3).train(bench) == 20  # the third batch is passed twice
    found = network.fc1.weight.detach()
    torch.testing.assert_close(found, w - 0.05 * turned, rtol=0, atol=1e-5)
    assert not torch.allclose(found, w - 0.05 * direction, rtol=0, atol=1e-3)


def test_on_one_batch_hessian_free_is_the_gradient_of_the_loss_after_the_inner_step() -> None:
    """By double backpropagation through the inner step."""
    split, network = classes(12, 4), linear(4, 3)
    w = network.fc1.weight.detach().clone().requires_grad_()

    def loss(weight):
        return nn.functional.cross_entropy(split.inputs @ weight.T, split.labels)

    (inner,) = torch.autograd.grad(loss(w), w, create_graph=True)
    (exact,) = torch.autograd.grad(loss(w - 0.8 * inner), w)
    solver = hessian_free(0.8, delta=0.05)
    bench = make(solver, network, split, settings(epochs=3, lr=1.0))
    solver.train(bench)
    found = w.detach() - network.fc1.weight.detach()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)
    (plain,) = torch.autograd.grad(loss(w - 0.8 * inner.detach()), w)
    assert not torch.allclose(plain, exact, rtol=0, atol=1e-2)


@pytest.mark.parametrize("variant", ["first_order", "hessian_free"])
def test_without_an_inner_step_it_is_sgd_over_the_later_batches(variant: str) -> None:
    training = settings(epochs=3, batch_size=4, momentum=0.9, weight_decay=0.01, max_grad_norm=0.5)
    split, network = classes(8, 5), drawn(Mlp((6,), 0.0).build((5,), 3))
    group = 2 if variant == "first_order" else 3
    plain = copy.deepcopy(network)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for inputs, labels in batches_of(split, training, 3)[1::group]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(inputs), labels).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    solver = PerFedAvg(0.0, variant, 0.01)
    solver.train(make(solver, network, split, training))
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor)


def test_a_step_that_lacks_batches_takes_its_latest_again() -> None:
    split, network = values(6, 3), linear(3, 1)
    w = network.fc1.weight.detach().clone()
    whole = (split.inputs, split.labels)
    expected = w - 0.1 * gradient(w - 0.3 * gradient(w, whole), whole)
    assert first_order(0.3).train(make(first_order(0.3), network, split, settings())) == 12
    torch.testing.assert_close(network.fc1.weight.detach(), expected)


@pytest.mark.parametrize("solver", [first_order(0.1), hessian_free(0.1)])
def test_dropout_and_batches_of_different_sizes_fit(solver: PerFedAvg) -> None:
    split, network = classes(11, 5), drawn(Mlp((6,), 0.5).build((5,), 3))
    bench = make(solver, network, split, settings(epochs=2, batch_size=4))
    assert solver.train(bench) >= 22
    assert not torch.equal(network.fc1.weight, bench.received[WEIGHT])


def test_running_statistics_go_through_both_passes() -> None:
    network = drawn(ResNet8(4, 2, "batch").build((1, 8, 8), 3))
    twice = copy.deepcopy(network).train()
    split = classes(9, 1, 8, 8)
    first_order(0.0).train(make(first_order(0.0), network, split, settings()))
    twice(split.inputs)
    twice(split.inputs)
    torch.testing.assert_close(network.norm.running_mean, twice.norm.running_mean)


def test_it_serves_what_it_received() -> None:
    network = linear(3, 1)
    bench = make(first_order(0.1), network, values(6, 3), settings())
    first_order(0.1).serve(bench)
    assert torch.equal(network.fc1.weight, bench.received[WEIGHT])
    assert first_order(0.1).private(bench.tensors) == first_order(0.1).crossing(bench.tensors) == {}


def test_the_method_serves_the_adapted_model(config) -> None:
    cfg = config("method=per_fedavg")
    assert cfg.evaluation.stages[-1] == "tuned"
    assert cfg.evaluation.tuning_epochs == 1


def test_a_resume_changes_no_bit(config, toy, tmp_path) -> None:
    overrides = "method=per_fedavg", "solver.variant=hessian_free"
    assert_resumes(config, toy(4, flipped=(1, 2)), tmp_path, *overrides)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -0.1}, "alpha: must be at least 0, got -0.1"),
        ({"variant": "exact"}, "variant: must be one of first_order, hessian_free, got 'exact'"),
        ({"delta": 0.0}, "delta: must be above 0, got 0.0"),
    ],
)
def test_wrong_values_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerFedAvg(**{"alpha": 0.1, "variant": "first_order", "delta": 0.1, **changes})


def test_what_it_does_not_go_with_is_refused() -> None:
    first_order(0.1).check(settings(), 0)
    with pytest.raises(ValueError, match="shares the whole model; set personalization=none"):
        first_order(0.1).check(settings(), 1)
    with pytest.raises(ValueError, match="phases that move all layers"):
        first_order(0.1).check(settings(phases=(Phase("shared", 1, 0.0),)), 0)
