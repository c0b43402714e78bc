"""The Ray engine on a cluster of two machines, both of them this one."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock

from fedtsd.clients.engine import ClientSide
from fedtsd.clients.ray_engine import Ray, RayEngine
from fedtsd.clients.sequential import Sequential, SequentialEngine
from fedtsd.errors import EngineError
from fedtsd.messages import Engine, Evaluate, Probe, Reply, Request, Train
from fedtsd.training import Phase
from tests.clients.sharded import (
    PHASE,
    assert_same,
    assert_same_state,
    request_of,
    side_of,
    train,
)
from tests.runs import run_toy, table

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra is missing"),
]
STORE = 80_000_000
"""Bytes of Ray's store; the least it takes."""


@dataclass(frozen=True)
class Dying:
    """An engine whose process dies before it answers, once, if a file tells it to."""

    told: str

    def check(self, device: torch.device) -> None:
        """Run anywhere."""

    def build(self, side: ClientSide) -> Engine:
        engine = Sequential(1).build(side)
        handle = engine.handle

        def handle_and_die(request: Request) -> Reply:
            reply = handle(request)
            if os.path.exists(self.told):
                os.unlink(self.told)
                os._exit(1)
            return reply

        engine.handle = handle_and_die  # type: ignore[method-assign]
        return engine


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Any]:
    """A head with two processors and a machine with one; one test process at a time has them."""
    with (
        FileLock(tmp_path_factory.getbasetemp().parent / "ray.lock"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")  # read when ray is imported
        patch.setenv("RAY_AUTH_TOKEN", os.urandom(16).hex())
        ray = importlib.import_module("ray")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
        running = Cluster(initialize_head=True, head_node_args=head)
        running.other = running.add_node(num_cpus=1, object_store_memory=STORE)
        yield running
        ray.shutdown()
        running.shutdown()


def settings(address: str, **changes: Any) -> Ray:
    values = {
        "address": address,
        "actors": 2,
        "cpus_per_actor": 0.5,
        "gpus_per_actor": 0.0,
        "inner": Sequential(1),
        "checkpoint_dir": None,
        "max_restarts": 5,
        "patience": 300.0,
    }
    return Ray(**{**values, **changes})


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Path:
    """A file that tells an actor to die."""
    return tmp_path_factory.mktemp("told") / "die"


@pytest.fixture(scope="module")
def running(cluster, told, tmp_path_factory) -> Iterator[RayEngine]:
    folder = tmp_path_factory.mktemp("logs")
    spec = settings(cluster.address, inner=Dying(str(told)), checkpoint_dir=str(folder))
    engine = spec.build(side_of())
    yield engine
    engine.close()
    assert list(folder.iterdir()) == []


@pytest.fixture
def both(running) -> tuple[RayEngine, SequentialEngine]:
    """The engine as new, and the reference."""
    reference = Sequential(1).build(side_of())
    running.load_state_dict(reference.state_dict())
    return running, reference


def kill(engine: RayEngine, number: int, **how: bool) -> None:
    engine._cluster.ray.kill(engine._actors._actors[number], **how)


TASKS = {
    "sums": Train((PHASE,), None, "samples"),
    "models and outputs": Train((PHASE,), torch.tensor([3, 1], dtype=torch.int32), None),
    "evaluation": Evaluate(("personalized", "tuned"), Phase("all", 1, 0.0)),
    "probe": Probe(look=False),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_actors_agree_with_the_reference(both, task) -> None:
    engine, reference = both
    first, then = train(1, clients=[4, 0, 1]), request_of(2, task, clients=[3, 1, 2, 0])
    assert_same(engine.handle(first), reference.handle(first))
    assert_same(engine.handle(then), reference.handle(then))
    assert_same_state(engine, reference)


def test_an_actor_that_dies_between_requests_is_not_noticed(both) -> None:
    engine, reference = both
    assert_same(engine.handle(train(1)), reference.handle(train(1)))
    kill(engine, 0, no_restart=False)
    assert_same(engine.handle(train(2)), reference.handle(train(2)))
    assert_same_state(engine, reference)


def test_an_actor_that_dies_in_a_request_is_not_noticed(both, told) -> None:
    engine, reference = both
    assert_same(engine.handle(train(1)), reference.handle(train(1)))
    told.touch()
    assert_same(engine.handle(train(2)), reference.handle(train(2)))
    assert not told.exists()
    assert_same_state(engine, reference)


def test_a_machine_that_dies_is_not_noticed_where_another_has_room(both, cluster) -> None:
    engine, reference = both
    assert_same(engine.handle(train(1)), reference.handle(train(1)))
    cluster.remove_node(cluster.other)
    assert_same(engine.handle(train(2)), reference.handle(train(2)))
    assert_same_state(engine, reference)


def test_a_whole_run_is_that_of_the_reference(config, cluster, running, toy, tmp_path) -> None:
    common = ("method=fedtsdp", "rounds=3", "partition.num_clients=4", "model.hidden=[8]")
    ray = ("engine=ray", f"engine.address={cluster.address}", "engine.cpus_per_actor=0.25")
    for name, engine in (("ray", ray), ("reference", ("engine=sequential",))):
        cfg = config(*common, *engine, "engine.actors=1" if name == "ray" else "seed=0")
        run_toy(cfg, toy(4, flipped=(2, 3)), tmp_path / name)
    for name in ("clients", "assignments", "exchanged"):
        pd.testing.assert_frame_equal(
            table(tmp_path / "ray", name), table(tmp_path / "reference", name), check_exact=True
        )


def test_an_actor_that_dies_for_good_is_an_error_that_names_its_clients(cluster, running) -> None:
    engine = settings(cluster.address, actors=1, max_restarts=0).build(side_of(3))
    kill(engine, 0)
    with pytest.raises(EngineError, match=r"round 1: actor 0 of 1 died .* with clients 0, 1, 2"):
        engine.handle(train(1, clients=range(3)))
    engine.close()


def test_a_cluster_without_room_is_an_error(cluster, running) -> None:
    with pytest.raises(EngineError, match=r"no room for 3 actors of 2 CPUs .* within 0\.1 s"):
        settings(cluster.address, actors=3, cpus_per_actor=2.0, patience=0.1).build(side_of(3))
