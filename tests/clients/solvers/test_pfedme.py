import copy

import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from torch import nn

from fedtsd.clients.solvers.pfedme import PFedMe
from fedtsd.models import Mlp, ResNet8
from fedtsd.training import Phase
from tests.clients.solvers.benches import (
    assert_resumes,
    batches_of,
    classes,
    copies,
    drawn,
    line,
    linear,
    make,
    settings,
    values,
)

WEIGHT = "fc1.weight"


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_the_steps_on_one_weight_are_those_worked_out_by_hand(momentum: float) -> None:
    solver = PFedMe(pull=2.0, inner_steps=3, inner_lr=0.1)
    split, network = values(7), linear(1, 1)
    bench = make(solver, network, split, settings(epochs=4, lr=0.2, momentum=momentum))
    slope, offset = line(split)
    w, velocity = network.fc1.weight.item(), 0.0
    for _ in range(4):
        theta = w
        for _ in range(3):
            theta -= 0.1 * (slope * theta - offset + 2.0 * (theta - w))
        velocity = momentum * velocity + 2.0 * (w - theta)
        w -= 0.2 * velocity
    assert solver.train(bench) == 4 * 3 * 7
    assert bench.kept[f"theta/{WEIGHT}"].item() == pytest.approx(theta, abs=1e-6)
    assert network.fc1.weight.item() == pytest.approx(w, abs=1e-6)
    assert theta != pytest.approx(w, abs=1e-4)


def test_many_inner_steps_reach_the_proximal_point_and_descend_the_moreau_envelope() -> None:
    solver = PFedMe(pull=3.0, inner_steps=200, inner_lr=0.1)
    split, network = values(9), linear(1, 1)
    bench = make(solver, network, split, settings(lr=0.05))
    slope, offset = line(split)
    start = network.fc1.weight.item()

    def envelope(w: float) -> float:
        near = (offset + 3.0 * w) / (slope + 3.0)
        return slope / 2 * near**2 - offset * near + 1.5 * (near - w) ** 2

    solver.train(bench)
    proximal = (offset + 3.0 * start) / (slope + 3.0)
    assert bench.kept[f"theta/{WEIGHT}"].item() == pytest.approx(proximal, abs=1e-6)
    gradient = (envelope(start + 1e-4) - envelope(start - 1e-4)) / 2e-4
    assert network.fc1.weight.item() == pytest.approx(start - 0.05 * gradient, abs=1e-6)


def test_batches_of_a_network_go_as_the_paper_says() -> None:
    solver = PFedMe(pull=4.0, inner_steps=2, inner_lr=0.1)
    training = settings(epochs=2, batch_size=4, lr=0.1, max_grad_norm=0.5, weight_decay=0.1)
    split, network = classes(10, 5), drawn(Mlp((6,), 0.0).build((5,), 3))
    w, theta = copy.deepcopy(network), copy.deepcopy(network)
    for inputs, labels in batches_of(split, training, 2):
        theta.load_state_dict(w.state_dict())
        for _ in range(2):
            theta.zero_grad()
            nn.functional.cross_entropy(theta(inputs), labels).backward()
            nn.utils.clip_grad_norm_(theta.parameters(), 0.5)
            with torch.no_grad():
                for mine, centre in zip(theta.parameters(), w.parameters(), strict=True):
                    mine -= 0.1 * (mine.grad + 0.1 * mine + 4.0 * (mine - centre))
        with torch.no_grad():
            for centre, mine in zip(w.parameters(), theta.parameters(), strict=True):
                centre -= 0.1 * 4.0 * (centre - mine)
    bench = make(solver, network, split, training)
    solver.train(bench)
    for name, tensor in w.state_dict().items():
        torch.testing.assert_close(bench.tensors[name].detach(), tensor)
        torch.testing.assert_close(bench.kept[f"theta/{name}"], theta.state_dict()[name])


def test_a_strong_pull_keeps_the_personal_model_at_the_shared_one() -> None:
    away = []
    for pull in (1.0, 100.0, 10_000.0):
        solver = PFedMe(pull, inner_steps=20, inner_lr=0.5 / pull)
        network = linear(3, 1)
        bench = make(solver, network, values(12, 3), settings(lr=1e-9))
        solver.train(bench)
        away.append((bench.kept[f"theta/{WEIGHT}"] - bench.received[WEIGHT]).norm().item())
    assert away[0] > 10 * away[1] > 100 * away[2] > 0
    assert away[2] < 1e-3


@given(
    pull=st.floats(0.1, 20),
    rate=st.floats(0.01, 1),
    inner=st.floats(0.01, 1),
    steps=st.integers(1, 6),
)
@given_settings(max_examples=40, deadline=None)
def test_the_shared_model_moves_the_same_share_of_the_way_everywhere(
    pull: float, rate: float, inner: float, steps: int
) -> None:
    solver = PFedMe(pull, steps, inner / pull)
    network = linear(3, 1)
    bench = make(solver, network, values(12, 3), settings(lr=rate / pull))
    solver.train(bench)
    start, theta = bench.received[WEIGHT], bench.kept[f"theta/{WEIGHT}"]
    expected = torch.lerp(start, theta, rate)
    scale = 1 + float(theta.abs().max())
    torch.testing.assert_close(network.fc1.weight.detach(), expected, rtol=0, atol=1e-5 * scale)


def test_it_serves_its_own_model_once_it_has_one() -> None:
    solver = PFedMe(pull=2.0, inner_steps=3, inner_lr=0.1)
    network = linear(2, 1)
    fresh = make(solver, network, values(8, 2), settings(), {f"theta/{WEIGHT}": torch.ones(1, 2)})
    solver.serve(fresh)
    assert torch.equal(network.fc1.weight, fresh.received[WEIGHT])
    solver.train(fresh)
    later = make(solver, linear(2, 1), values(8, 2), settings(), copies(fresh.kept))
    solver.serve(later)
    assert torch.equal(later.network.fc1.weight, fresh.kept[f"theta/{WEIGHT}"])
    assert not torch.equal(later.network.fc1.weight, later.received[WEIGHT])


def test_running_statistics_are_those_that_training_left() -> None:
    solver = PFedMe(pull=2.0, inner_steps=2, inner_lr=0.1)
    network = drawn(ResNet8(4, 2, "batch").build((1, 8, 8), 3))
    bench = make(solver, network, classes(9, 1, 8, 8), settings())
    solver.train(bench)
    mean = bench.kept["theta/norm.running_mean"]
    assert torch.equal(mean, network.norm.running_mean)
    assert not torch.equal(mean, bench.received["norm.running_mean"])


def test_private_tensors_survive_a_resume(config, toy, tmp_path) -> None:
    assert_resumes(config, toy(4, flipped=(1, 2)), tmp_path, "method=pfedme", "cohort.size=2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pull": 0.0}, "pull: must be above 0, got 0.0"),
        ({"inner_steps": 0}, "inner_steps: must be at least 1, got 0"),
        ({"inner_lr": 0.0}, r"inner_lr: must be above 0 and below 2 / pull \(0.5\).*got 0.0"),
        ({"inner_lr": 0.5}, r"inner_lr: must be above 0 and below 2 / pull \(0.5\).*got 0.5"),
    ],
)
def test_wrong_values_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PFedMe(**{"pull": 4.0, "inner_steps": 5, "inner_lr": 0.1, **changes})


def test_what_it_does_not_go_with_is_refused() -> None:
    solver = PFedMe(pull=4.0, inner_steps=5, inner_lr=0.1)
    solver.check(settings(lr=0.4), 0)
    with pytest.raises(ValueError, match=r"pull: must be below 2 / training.lr \(4\).*got 4.0"):
        solver.check(settings(lr=0.5), 0)
    with pytest.raises(ValueError, match="shares the whole model; set personalization=none"):
        solver.check(settings(), 1)
    with pytest.raises(ValueError, match="without a proximal"):
        solver.check(settings(phases=(Phase("all", 1, 0.1),)), 0)
