import numpy as np
import pytest
import torch

from fedtsd.aggregation_scaffold import ScaffoldMean
from fedtsd.clients.solvers.scaffold import Scaffold
from fedtsd.data.holdings import Split
from fedtsd.errors import ConfigError
from fedtsd.execution import build
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import ResNet8
from fedtsd.server import start_state
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
METHOD = ("method=scaffold", "training.lr=0.1")


def bench_of(split, network, training, control: float, own: float):
    bench = make(
        Scaffold(), network, split, training, {f"scaffold/{WEIGHT}": torch.tensor([[own]])}
    )
    bench.received[f"control/{WEIGHT}"] = torch.tensor([[control]])
    return bench


def test_the_steps_on_one_weight_are_those_worked_out_by_hand() -> None:
    split, network = values(7), linear(1, 1)
    bench = bench_of(split, network, settings(epochs=4, lr=0.2), control=0.7, own=-0.4)
    slope, offset = line(split)
    x = y = network.fc1.weight.item()
    met = []
    for _ in range(4):
        met.append(slope * y - offset)
        y -= 0.2 * (met[-1] - -0.4 + 0.7)
    assert Scaffold().train(bench) == 4 * 7
    assert network.fc1.weight.item() == pytest.approx(y, abs=1e-6)
    new = bench.kept[f"scaffold/{WEIGHT}"].item()
    assert new == pytest.approx(-0.4 - 0.7 + (x - y) / (4 * 0.2), abs=1e-6)
    assert new == pytest.approx(np.mean(met), abs=1e-6)
    assert bench.sent[f"control/{WEIGHT}"].item() == pytest.approx(new + 0.4, abs=1e-6)
    assert bench.sent.keys() == {f"control/{WEIGHT}"}


def federated(rounds: int, corrected: bool) -> float:
    """Clients with the losses (w - 1)^2 and (2 w + 2)^2, and ten local steps in a round."""
    splits = [
        Split(torch.tensor([[1.0]]), torch.tensor([1.0])),
        Split(torch.tensor([[2.0]]), torch.tensor([-2.0])),
    ]
    start = {WEIGHT: torch.tensor([[3.0]]), f"control/{WEIGHT}": torch.zeros(1, 1)}
    server = start_state(start, np.zeros((2, 1), dtype=bool))
    own = [0.0, 0.0]
    for round in range(1, rounds + 1):
        control = server.centres[0][f"control/{WEIGHT}"].item()
        rows = []
        for client, split in enumerate(splits):
            network = linear(1, 1)
            network.fc1.weight.data.copy_(server.centres[0][WEIGHT])
            variates = (control, own[client]) if corrected else (0.0, 0.0)
            bench = bench_of(split, network, settings(epochs=10, lr=0.05), *variates)
            Scaffold().train(bench)
            own[client] = bench.kept[f"scaffold/{WEIGHT}"].item()
            rows.append(ClientReply(client, copies({**bench.tensors, **bench.sent}), 1))
        server = ScaffoldMean("uniform", 1.0).update(server, Reply(round, tuple(rows)), ())
    return server.centres[0][WEIGHT].item()


def test_it_reaches_the_minimum_of_unlike_clients_where_plain_averaging_does_not() -> None:
    # 2 (w - 1) + 4 (2 w + 2) = 0. Plain averaging stops where the ways of ten steps cancel.
    assert federated(40, corrected=True) == pytest.approx(-0.6, abs=1e-5)
    near, far = 1 - 0.9**10, 1 - 0.6**10
    assert federated(40, corrected=False) == pytest.approx((near - far) / (near + far), abs=1e-5)


@pytest.mark.parametrize("rate", [1.0, 0.6])
def test_a_run_is_that_of_the_paper(rate: float, config, toy, tmp_path) -> None:
    federation = toy(naive.NUM_CLIENTS, flipped=(1, 2))
    cfg = config(*naive.SMALL, *METHOD, f"aggregation.lr={rate}")
    x = naive.start_of(cfg, federation)
    c = naive.zeros(x)
    own = [naive.zeros(x) for _ in range(naive.NUM_CLIENTS)]
    for round in (1, 2, 3):
        models, changes = [], []
        for i in naive.cohort(round):
            y, steps = x, 0
            for batch in naive.batches(federation, i, 2, naive.stream(round, i)):
                corrected = naive.plus(naive.plus(naive.gradient(y, *batch), own[i], -1), c, 1)
                y, steps = naive.plus(y, corrected, -0.1), steps + 1
            new = naive.plus(own[i], c, -1)
            new = naive.plus(new, naive.plus(x, y, -1), 1 / (steps * 0.1))
            models.append(y)
            changes.append(naive.plus(new, own[i], -1))
            own[i] = new
        x = naive.plus(x, naive.plus(naive.mean(models), x, -1), rate)
        c = naive.plus(c, naive.mean(changes), naive.COHORT / naive.NUM_CLIENTS)
    centre, clients = naive.end_of(cfg, federation, tmp_path)
    naive.assert_models(centre, x)
    naive.assert_models(centre, {f"control/{name}": tensor for name, tensor in c.items()})
    for i in clients["client"].tolist():
        naive.assert_models(naive.kept(clients, "scaffold/", i), own[i])
    assert max(tensor.abs().max() for tensor in c.values()) > 0.01


def test_the_servers_control_variate_is_the_mean_of_all_clients(config, toy, tmp_path) -> None:
    federation = toy(naive.NUM_CLIENTS, flipped=(1, 2))
    centre, clients = naive.end_of(config(*naive.SMALL, *METHOD), federation, tmp_path)
    for name in naive.kept(clients, "scaffold/", 0):
        total = clients[f"scaffold/{name}"].sum(dim=0)  # those who never trained are at zero
        torch.testing.assert_close(centre[f"control/{name}"], total / naive.NUM_CLIENTS)


def test_one_client_alone_does_plain_sgd(config, toy, tmp_path) -> None:
    alone = (*naive.SMALL, "partition.num_clients=1", "cohort.size=1", "training.momentum=0")
    found, _ = naive.end_of(config(*alone, *METHOD), toy(1), tmp_path / "scaffold")
    plain = config(*alone, "method=fedavg", "training.lr=0.1")
    expected, _ = naive.end_of(plain, toy(1), tmp_path / "fedavg")
    naive.assert_models(found, expected)


def test_changes_cross_the_door_and_the_clients_own_stay(config, toy, tmp_path) -> None:
    experiment = build(config(*naive.SMALL, *METHOD), toy(naive.NUM_CLIENTS))
    server = experiment.start.server
    request = experiment.train_request(server, 1)
    reply = experiment.channel.exchange(request)
    model = {name for name in server.centres[0] if "/" not in name}
    both = model | {f"control/{name}" for name in model}
    assert request.sent(request.rows[0]).keys() == both
    assert {frozenset(row.tensors) for row in reply.rows} == {frozenset(both)}
    kept = experiment.engine.state_dict()
    assert kept.keys() == {"client"} | {f"scaffold/{name}" for name in model}


def test_running_statistics_have_no_control_variate() -> None:
    network = drawn(ResNet8(4, 2, "batch").build((1, 8, 8), 3))
    bench = make(Scaffold(), network, classes(9, 1, 8, 8), settings())
    crossing, private = (side(bench.tensors) for side in (Scaffold().crossing, Scaffold().private))
    bench.received |= crossing
    Scaffold().train(bench)
    assert crossing.keys() == bench.sent.keys()
    assert private.keys() == {f"scaffold/{name}" for name in bench.parameters}
    assert {name.removeprefix("control/") for name in bench.sent} == bench.parameters.keys()
    assert not torch.equal(network.norm.running_mean, bench.received["norm.running_mean"])


def test_control_variates_survive_a_resume(config, toy, tmp_path) -> None:
    assert_resumes(config, toy(4, flipped=(1, 2)), tmp_path, "method=scaffold", "cohort.size=2")


@pytest.mark.parametrize(
    ("training", "num_personal", "message"),
    [
        (settings(), 1, "SCAFFOLD shares the whole model; set personalization=none"),
        (settings(momentum=0.9), 0, "needs training.momentum=0.*got 0.9"),
        (settings(phases=(Phase("all", 1, 0.1),)), 0, "without a proximal"),
        (settings(phases=(Phase("all", 0, 0.0),)), 0, "needs an epoch"),
    ],
)
def test_what_it_does_not_go_with_is_refused(training, num_personal, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scaffold().check(training, num_personal)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("solver=scaffold", "training.momentum=0"), "sends; set aggregation=scaffold"),
        (("aggregation=scaffold",), "set solver=scaffold, or aggregation=mean"),
        (("method=scaffold", "aggregation=mean"), "sends; set aggregation=scaffold"),
    ],
)
def test_either_side_without_the_other_is_an_error_before_work(overrides, message, config) -> None:
    with pytest.raises(ConfigError, match=rf"^aggregation\._target_: .*{message}$"):
        config("method=fedavg", *overrides)
