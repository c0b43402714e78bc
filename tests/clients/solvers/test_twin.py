import pytest
import torch

from fedtsd.clients.solvers.twin import Twin
from fedtsd.execution import build
from fedtsd.models import ResNet8
from fedtsd.training import Phase
from tests.clients.solvers import naive
from tests.clients.solvers.benches import (
    assert_resumes,
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
METHOD = ("method=ditto", "training.lr=0.1", f"training.momentum={naive.MOMENTUM}")


def begun(value: float) -> dict[str, torch.Tensor]:
    """What a client keeps that has trained before."""
    return {f"twin/{WEIGHT}": torch.tensor([[value]]), "twin/trained": torch.ones(1)}


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_the_steps_on_one_weight_are_those_worked_out_by_hand(momentum: float) -> None:
    solver, split, network = Twin(pull=1.5, epochs=3), values(7), linear(1, 1)
    bench = make(solver, network, split, settings(epochs=2, momentum=momentum), begun(-2.0))
    slope, offset = line(split)
    received = network.fc1.weight.item()
    w, velocity = received, 0.0
    for _ in range(2):
        velocity = momentum * velocity + slope * w - offset
        w -= 0.1 * velocity
    v, velocity = -2.0, 0.0
    for _ in range(3):
        velocity = momentum * velocity + slope * v - offset + 1.5 * (v - received)
        v -= 0.1 * velocity
    assert solver.train(bench) == (2 + 3) * 7
    assert network.fc1.weight.item() == pytest.approx(w, abs=1e-6)
    assert bench.kept[f"twin/{WEIGHT}"].item() == pytest.approx(v, abs=1e-6)


def test_many_steps_reach_the_minimum_of_the_loss_with_the_pull() -> None:
    solver, split, network = Twin(pull=2.0, epochs=300), values(9), linear(1, 1)
    received = network.fc1.weight.item()
    bench = make(solver, network, split, settings(), begun(-2.0))
    solver.train(bench)
    slope, offset = line(split)
    minimum = (offset + 2.0 * received) / (slope + 2.0)
    assert bench.kept[f"twin/{WEIGHT}"].item() == pytest.approx(minimum, abs=1e-6)


@pytest.mark.parametrize("pull", [0.0, 0.8])
def test_a_run_is_that_of_the_paper(pull: float, config, toy, tmp_path) -> None:
    federation = toy(naive.NUM_CLIENTS, flipped=(1, 2))
    cfg = config(*naive.SMALL, *METHOD, f"solver.pull={pull}", "solver.epochs=1")

    def descend(model, epochs, client, rng, pulled, centre):
        velocity = naive.zeros(model)
        for batch in naive.batches(federation, client, epochs, rng):
            direction = naive.gradient(model, *batch)
            direction = naive.plus(direction, naive.plus(model, centre, -1), pulled)
            velocity = naive.plus(direction, velocity, naive.MOMENTUM)
            model = naive.plus(model, velocity, -0.1)
        return model

    w = naive.start_of(cfg, federation)
    twins = {}
    for round in (1, 2, 3):
        sent = []
        for i in naive.cohort(round):
            rng = naive.stream(round, i)
            sent.append(descend(w, 2, i, rng, 0.0, w))
            twins[i] = descend(twins.get(i, w), 1, i, rng, pull, w)
        w = naive.mean(sent)
    centre, clients = naive.end_of(cfg, federation, tmp_path)
    naive.assert_models(centre, w)
    assert clients["client"].tolist() == sorted(twins)
    for i, twin in twins.items():
        naive.assert_models(naive.kept(clients, "twin/", i), twin)


def test_the_shared_model_is_that_of_fedavg_to_the_bit(config, toy, tmp_path) -> None:
    federation = toy(naive.NUM_CLIENTS, flipped=(1, 2))
    ditto, _ = naive.end_of(config(*naive.SMALL, *METHOD), federation, tmp_path / "ditto")
    plain = config(*naive.SMALL, *METHOD, "method=fedavg")
    fedavg, _ = naive.end_of(plain, federation, tmp_path / "fedavg")
    assert ditto.keys() == fedavg.keys()
    assert all(torch.equal(tensor, fedavg[name]) for name, tensor in ditto.items())


@pytest.mark.parametrize(("pull", "alone"), [(0.0, True), (0.5, False)])
def test_without_a_pull_others_mean_nothing_to_a_twin(pull, alone, config, toy, tmp_path) -> None:
    # All are there in round 1, when twins start from the one model that everybody knows.
    cfg = config(*naive.SMALL, *METHOD, f"solver.pull={pull}", "cohort.size=null")
    twins = []
    for flipped in ((), (1, 2, 3)):
        _, clients = naive.end_of(cfg, toy(naive.NUM_CLIENTS, flipped), tmp_path / str(flipped))
        twins.append(naive.kept(clients, "twin/", 0))
    assert all(torch.equal(twins[0][name], twins[1][name]) for name in twins[0]) == alone


def test_the_twin_is_served_once_there_is_one() -> None:
    solver, network = Twin(pull=0.5, epochs=1), linear(1, 1)
    fresh = make(solver, network, values(8), settings(), {f"twin/{WEIGHT}": torch.ones(1, 1)})
    solver.serve(fresh)
    assert torch.equal(network.fc1.weight, fresh.received[WEIGHT])
    solver.train(fresh)
    later = make(solver, linear(1, 1), values(8), settings(), copies(fresh.kept))
    solver.serve(later)
    assert torch.equal(later.network.fc1.weight, fresh.kept[f"twin/{WEIGHT}"])
    assert not torch.equal(later.network.fc1.weight, later.received[WEIGHT])


def test_twin_and_shared_model_have_running_statistics_of_their_own() -> None:
    network = drawn(ResNet8(4, 2, "batch").build((1, 8, 8), 3))
    solver = Twin(pull=0.5, epochs=2)
    bench = make(solver, network, classes(9, 1, 8, 8), settings())
    solver.train(bench)
    name = "norm.running_mean"
    models = (bench.received[name], bench.tensors[name], bench.kept[f"twin/{name}"])
    assert not any(torch.equal(models[i], models[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_twin_never_crosses_the_door(config, toy) -> None:
    experiment = build(config(*naive.SMALL, *METHOD), toy(naive.NUM_CLIENTS))
    server = experiment.start.server
    request = experiment.train_request(server, 1)
    reply = experiment.channel.exchange(request)
    kept = experiment.engine.state_dict()
    assert request.task.sums == "samples"
    assert reply.sums[0].tensors.keys() == server.centres[0].keys()
    assert not any("/" in name for name in server.centres[0])
    assert kept.keys() == {"client", "twin/trained"} | {f"twin/{n}" for n in server.centres[0]}


def test_twins_survive_a_resume(config, toy, tmp_path) -> None:
    assert_resumes(config, toy(4, flipped=(1, 2)), tmp_path, "method=ditto", "cohort.size=2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pull": -0.1}, "pull: must be at least 0, got -0.1"),
        ({"epochs": -1}, "epochs: must be at least 0, got -1"),
    ],
)
def test_wrong_values_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Twin(**{"pull": 0.1, "epochs": 1, **changes})


def test_what_it_does_not_go_with_is_refused() -> None:
    solver = Twin(pull=4.0, epochs=1)
    solver.check(settings(lr=0.4, phases=(Phase("all", 1, 0.1),)), 0)
    with pytest.raises(ValueError, match="a twin shares the whole model; set personalization=none"):
        solver.check(settings(), 1)
    with pytest.raises(ValueError, match=r"pull: must be below 2 / training.lr \(4\).*got 4.0"):
        solver.check(settings(lr=0.5), 0)
