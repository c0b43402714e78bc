import random

import pytest
import torch

from fedtsd.clients.flat import Layout
from fedtsd.clients.gathering import JOB_CLIENTS, Gathering
from fedtsd.messages import ClientReply, ClientRequest, Evaluate, Request, Train
from fedtsd.training import Phase

PHASE = Phase("all", 1, 0.0)
LAYOUT = Layout({"body": torch.zeros(2), "head": torch.zeros(1)})


def gathering(sizes, sums: str | None = "samples", slots: int = 4, hands: int = 2, task=None):
    task = task or Train((PHASE,), None, sums)
    rows = tuple(ClientRequest(10 + i, 0, frozenset()) for i in range(len(sizes)))
    request = Request(1, task, ({"body": torch.zeros(2), "head": torch.zeros(1)},), rows)
    store = torch.zeros(slots, LAYOUT.size)
    return Gathering(request, sizes, LAYOUT, store, hands), store


def run(found, store, sizes, seed: int = 0) -> list[int]:
    """Let two hands finish jobs in a random order; return the positions as they started."""
    rng, open_jobs, started = random.Random(seed), [], []
    while not found.done:
        if not open_jobs:
            found.settle()
        while len(open_jobs) < 2 and (job := found.next_job()):
            for position, slot in zip(job.positions, job.slots, strict=True):
                store[slot] = position + 1.0
            open_jobs.append(job)
            started += job.positions
        if not open_jobs:
            break
        job = open_jobs.pop(rng.randrange(len(open_jobs)))
        found.take(job, [ClientReply(10 + p, {}, sizes[p]) for p in job.positions])
        if rng.random() < 0.7:
            found.settle()
    return started


@pytest.mark.parametrize("seed", range(5))
def test_a_sum_does_not_depend_on_who_finishes_first(seed: int) -> None:
    sizes = [7, 90, 1, 1, 60, 30, 2, 2, 2, 4]
    found, store = gathering(sizes, slots=3)
    started = run(found, store, sizes, seed)
    assert sorted(started) == list(range(10))
    assert started[:3] == [1, 4, 5]  # the largest first
    reply = found.reply()
    assert [row.client for row in reply.rows] == list(range(10, 20))
    by_hand = sum(n * (i + 1.0) for i, n in enumerate(sizes))
    assert reply.sums[0].tensors["body"].tolist() == [by_hand, by_hand]
    assert reply.sums[0].weights == {"body": 199.0, "head": 199.0}


def test_models_come_back_one_by_one_where_they_are_not_summed() -> None:
    sizes = [5, 6, 7]
    found, store = gathering(sizes, sums=None)
    run(found, store, sizes)
    reply = found.reply()
    assert reply.sums is None
    assert [row.tensors["head"].item() for row in reply.rows] == [1.0, 2.0, 3.0]
    store.zero_()
    assert reply.rows[2].tensors["body"].tolist() == [3.0, 3.0]  # copies


def test_small_clients_share_a_job_and_the_last_ones_do_not() -> None:
    found, _ = gathering([10] * 100, slots=100)
    sizes = []
    while job := found.next_job():
        sizes.append(len(job.positions))
    assert sizes[0] == JOB_CLIENTS
    assert sizes[-3:] == [1, 1, 1]
    assert sum(sizes) == 100


def test_nobody_starts_without_a_free_slot() -> None:
    found, _ = gathering([10] * 5, slots=2, hands=1)
    first = found.next_job()
    assert len(first.positions) == 2
    assert found.next_job() is None
    found.take(first, [ClientReply(10, {}, 10), ClientReply(11, {}, 10)])
    assert found.next_job() is None
    found.settle()
    assert found.next_job().positions == (2,)


def test_an_evaluation_has_neither_sums_nor_models() -> None:
    sizes = [3, 4]
    found, store = gathering(sizes, task=Evaluate(("personalized",), PHASE))
    run(found, store, sizes)
    reply = found.reply()
    assert reply.sums is None
    assert [row.tensors for row in reply.rows] == [{}, {}]
