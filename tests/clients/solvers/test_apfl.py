import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from fedtsd.clients.solvers.apfl import Apfl
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
from tests.runs import table

WEIGHT = "fc1.weight"
METHOD = ("method=apfl", "training.lr=0.1", f"training.momentum={naive.MOMENTUM}")


def begun(value: float) -> dict[str, torch.Tensor]:
    """What a client keeps that has trained before."""
    return {f"apfl/own/{WEIGHT}": torch.tensor([[value]]), "apfl/own/trained": torch.ones(1)}


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_the_steps_on_one_weight_are_those_worked_out_by_hand(adapt, momentum) -> None:
    solver, split, network = Apfl(0.3, adapt), values(7), linear(1, 1)
    bench = make(solver, network, split, settings(epochs=4, momentum=momentum), begun(0.8))
    slope, offset = line(split)
    w, v, alpha = network.fc1.weight.item(), 0.8, 0.3
    received, velocities = w, [0.0, 0.0]
    for _ in range(4):
        mixed = slope * (alpha * v + (1 - alpha) * w) - offset
        velocities[0] = momentum * velocities[0] + slope * w - offset
        velocities[1] = momentum * velocities[1] + alpha * mixed
        change = 0.1 * (v - w) * mixed if adapt else 0.0
        w, v, alpha = w - 0.1 * velocities[0], v - 0.1 * velocities[1], alpha - change
    assert solver.train(bench) == 4 * 2 * 7
    assert network.fc1.weight.item() == pytest.approx(w, abs=1e-6)
    assert bench.kept[f"apfl/own/{WEIGHT}"].item() == pytest.approx(v, abs=1e-6)
    assert bench.kept["apfl/alpha"].item() == pytest.approx(alpha, abs=1e-6)
    assert (alpha == pytest.approx(0.3, abs=1e-3)) != adapt
    bench.load(bench.received)
    solver.serve(bench)
    served = alpha * v + (1 - alpha) * received
    assert network.fc1.weight.item() == pytest.approx(served, abs=1e-6)


@given(start=st.floats(0, 1), own=st.floats(-50, 50))
@given_settings(max_examples=30, deadline=None)
def test_alpha_stays_in_its_bounds(start: float, own: float) -> None:
    solver = Apfl(start, adapt=True)
    bench = make(solver, linear(1, 1), values(7), settings(epochs=3, lr=0.05), begun(own))
    solver.train(bench)
    assert 0 <= bench.kept["apfl/alpha"].item() <= 1


@pytest.mark.parametrize("own", [-40.0, 40.0])
def test_alpha_goes_to_the_model_with_the_lower_loss(own: float) -> None:
    solver, split, network = Apfl(0.5, adapt=True), values(7), linear(1, 1)
    slope, offset = line(split)
    bench = make(solver, network, split, settings(lr=0.01), begun(own))
    solver.train(bench)
    assert bench.kept["apfl/alpha"].item() == 0.0  # the client's own is far away
    with torch.no_grad():
        network.fc1.weight.fill_(own)
    bench = make(solver, network, split, settings(lr=0.01), begun(offset / slope))
    solver.train(bench)
    assert bench.kept["apfl/alpha"].item() == 1.0


@pytest.mark.parametrize("adapt", [False, True])
def test_a_run_is_that_of_the_paper(adapt: bool, config, toy, tmp_path) -> None:
    federation = toy(naive.NUM_CLIENTS, flipped=(1, 2))
    cfg = config(*naive.SMALL, *METHOD, "solver.alpha=0.4", f"solver.adapt={adapt}")
    centre = naive.start_of(cfg, federation)
    owns, alphas = {}, dict.fromkeys(range(naive.NUM_CLIENTS), 0.4)
    for round in (1, 2, 3):
        sent = []
        for i in naive.cohort(round):
            w, v, alpha = centre, owns.get(i, centre), alphas[i]
            w_velocity, v_velocity = naive.zeros(w), naive.zeros(w)
            for batch in naive.batches(federation, i, 2, naive.stream(round, i)):
                apart = naive.plus(v, w, -1)
                at_mixed = naive.gradient(naive.plus(w, apart, alpha), *batch)
                w_velocity = naive.plus(naive.gradient(w, *batch), w_velocity, naive.MOMENTUM)
                v_velocity = naive.plus(
                    naive.plus(naive.zeros(w), at_mixed, alpha), v_velocity, naive.MOMENTUM
                )
                w, v = naive.plus(w, w_velocity, -0.1), naive.plus(v, v_velocity, -0.1)
                if adapt:
                    slope = sum(float((apart[n] * at_mixed[n]).sum()) for n in apart)
                    alpha = min(1.0, max(0.0, alpha - 0.1 * slope))
            owns[i], alphas[i] = v, alpha
            sent.append(w)
        centre = naive.mean(sent)
    found, clients = naive.end_of(cfg, federation, tmp_path)
    naive.assert_models(found, centre)
    for row, i in enumerate(clients["client"].tolist()):
        naive.assert_models(naive.kept(clients, "apfl/own/", i), owns[i])
        assert clients["apfl/alpha"][row].item() == pytest.approx(alphas[i], abs=1e-5)
    assert (len(set(alphas.values())) > 1) == adapt


def test_all_its_own_is_local_training(config, toy, tmp_path) -> None:
    federation = toy(naive.NUM_CLIENTS, flipped=(1, 2))
    mixed = config(*naive.SMALL, *METHOD, "solver.alpha=1", "cohort.size=null")
    alone = config(*naive.SMALL, *METHOD, "method=local", "cohort.size=null")
    _, own = naive.end_of(mixed, federation, tmp_path / "apfl")
    _, local = naive.end_of(alone, federation, tmp_path / "local")
    for i in range(naive.NUM_CLIENTS):
        naive.assert_models(naive.kept(own, "apfl/own/", i), naive.kept(local, "", i))
    losses = [table(tmp_path / run, "clients")["loss"].tolist() for run in ("apfl", "local")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_nothing_its_own_is_fedavg(config, toy, tmp_path) -> None:
    federation = toy(naive.NUM_CLIENTS, flipped=(1, 2))
    for run, overrides in (("apfl", ("solver.alpha=0",)), ("fedavg", ("method=fedavg",))):
        cfg = config(*naive.SMALL, *METHOD, *overrides)
        naive.end_of(cfg, federation, tmp_path / run)
    apfl, fedavg = (table(tmp_path / run, "clients") for run in ("apfl", "fedavg"))
    assert apfl["accuracy"].tolist() == fedavg["accuracy"].tolist()
    assert apfl["loss"].tolist() == pytest.approx(fedavg["loss"].tolist(), abs=1e-5)


def test_a_client_that_has_not_trained_is_served_what_it_received() -> None:
    solver, network = Apfl(0.5, adapt=False), linear(1, 1)
    fresh = make(solver, network, values(8), settings(), {f"apfl/own/{WEIGHT}": torch.ones(1, 1)})
    solver.serve(fresh)
    assert torch.equal(network.fc1.weight, fresh.received[WEIGHT])
    solver.train(fresh)
    later = make(solver, linear(1, 1), values(8), settings(), copies(fresh.kept))
    solver.serve(later)
    half = (fresh.kept[f"apfl/own/{WEIGHT}"] + later.received[WEIGHT]) / 2
    torch.testing.assert_close(later.network.fc1.weight.detach(), half)
    assert not torch.equal(half, later.received[WEIGHT])


def test_shared_model_and_mixture_have_running_statistics_of_their_own() -> None:
    network = drawn(ResNet8(4, 2, "batch").build((1, 8, 8), 3))
    solver = Apfl(0.5, adapt=False)
    bench = make(solver, network, classes(9, 1, 8, 8), settings(epochs=2))
    solver.train(bench)
    name = "norm.running_mean"
    shared, own = bench.tensors[name].clone(), bench.kept[f"apfl/own/{name}"]
    models = (bench.received[name], shared, own)
    assert not any(torch.equal(models[i], models[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    solver.serve(bench)
    assert torch.equal(bench.tensors[name], own)


def test_only_the_shared_model_crosses_the_door(config, toy) -> None:
    experiment = build(config(*naive.SMALL, *METHOD), toy(naive.NUM_CLIENTS))
    server = experiment.start.server
    reply = experiment.channel.exchange(experiment.train_request(server, 1))
    assert reply.sums[0].tensors.keys() == server.centres[0].keys()
    assert not any("/" in name for name in server.centres[0])
    assert "apfl/alpha" in experiment.engine.state_dict()


def test_what_clients_keep_survives_a_resume(config, toy, tmp_path) -> None:
    federation = toy(4, flipped=(1, 2))
    assert_resumes(
        config, federation, tmp_path, "method=apfl", "solver.adapt=true", "cohort.size=2"
    )


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_wrong_values_are_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha: must be in \[0, 1\], got {alpha}"):
        Apfl(alpha, adapt=False)


def test_what_it_does_not_go_with_is_refused() -> None:
    solver = Apfl(0.5, adapt=False)
    solver.check(settings(), 0)
    with pytest.raises(ValueError, match="APFL shares the whole model; set personalization=none"):
        solver.check(settings(), 1)
    with pytest.raises(ValueError, match="without a proximal"):
        solver.check(settings(phases=(Phase("all", 1, 0.1),)), 0)
