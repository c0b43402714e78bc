"""A model that is refused is in no sum, whoever adds up."""

import dataclasses

import pytest
import torch

from fedtsd.execution import build
from fedtsd.experiment import Experiment

COMMON = ("method=fedavg", "partition.num_clients=6", "model.hidden=[8]", "training.lr=0.02")
ENGINES = (
    ("engine=sequential",),
    ("engine=parallel", "engine.workers=1"),
    ("engine=parallel", "engine.workers=2"),
    ("engine=stacked",),
    ("engine=stacked", "engine.chunk=2"),
)


def poisoned(federation, client: int, value: float):
    """A federation in which one client has samples that no training survives."""
    held = federation.clients[client]
    inputs = torch.full_like(held.train.inputs, value)
    clients = list(federation.clients)
    clients[client] = dataclasses.replace(
        held, train=dataclasses.replace(held.train, inputs=inputs)
    )
    return dataclasses.replace(federation, clients=tuple(clients))


def exchange(experiment: Experiment, without: int | None = None, personal=frozenset()):
    asked = experiment.train_request(experiment.start.server, 1)
    rows = tuple(
        dataclasses.replace(row, personal=personal) for row in asked.rows if row.client != without
    )
    return experiment.channel.exchange(dataclasses.replace(asked, rows=rows))


@pytest.mark.parametrize("engine", ENGINES, ids="-".join)
@pytest.mark.parametrize(
    ("value", "reason"), [(float("inf"), "NaN or infinite values"), (1e12, "fc1.weight has")]
)
def test_the_sum_is_that_of_the_others(engine, value, reason, config, toy) -> None:
    experiment = build(config(*COMMON, *engine), poisoned(toy(6), 2, value))
    reply, others = exchange(experiment), exchange(experiment, without=2)
    experiment.engine.close()
    assert [row.client for row in reply.rows] == [0, 1, 3, 4, 5]
    (incident,) = reply.incidents
    assert (incident.client, incident.outcome) == (2, "refused")
    assert reason in incident.reason
    assert reply.sums[0].weights == others.sums[0].weights
    for name, tensor in reply.sums[0].tensors.items():
        assert torch.isfinite(tensor).all()
        assert torch.equal(tensor, others.sums[0].tensors[name])


@pytest.mark.parametrize("engine", ENGINES, ids="-".join)
def test_what_stays_with_the_client_is_not_looked_at(engine, config, toy) -> None:
    cfg = config(*COMMON, "personalization=all", *engine)
    experiment = build(cfg, poisoned(toy(6), 2, float("inf")))
    everything = frozenset(experiment.start.server.centres[0])
    reply = exchange(experiment, personal=everything)
    experiment.engine.close()
    assert not reply.incidents
    assert len(reply.rows) == 6
