"""What the Ray engine is made of, without Ray."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.attack import Mimic
from fedtsd.clients import ray_cluster
from fedtsd.clients.ray_actors import Shard, ShardActor
from fedtsd.clients.ray_engine import added, holders_of, owners, put_together
from fedtsd.clients.ray_log import ShardLog
from fedtsd.clients.sequential import Sequential
from fedtsd.errors import ConfigError, EngineError, RunFolderError
from fedtsd.messages import ClientReply, Reply, Request
from fedtsd.sums import Sums
from tests.clients.sharded import assert_same, side_of, train
from tests.conftest import gaussian_federation

changes = st.lists(st.tuples(st.frozensets(st.integers(0, 5), min_size=1), st.booleans()))


@settings(max_examples=40, deadline=None)
@given(changes)
def test_a_log_gives_back_every_accepted_state(tmp_path_factory, history) -> None:
    folder = tmp_path_factory.mktemp("log")
    state: dict[int, float] = {}
    log, accepted = ShardLog(folder), 0
    for value, (clients, arrives) in enumerate(history):
        changed = {**state, **dict.fromkeys(clients, float(value))}
        ids = sorted(changed)
        tensors = {"client": torch.tensor(ids), "a": torch.tensor([changed[i] for i in ids])}
        log.write(accepted + 1, tensors, torch.tensor(sorted(clients)))
        if arrives:
            state, accepted = changed, accepted + 1
        else:  # the shard died before its reply arrived, and another one goes on
            log = ShardLog(folder)
        if accepted:
            found = log.read(accepted)
            assert dict(zip(found["client"].tolist(), found["a"].tolist(), strict=True)) == state
            assert found["client"].tolist() == sorted(state)
    written = sum(path.stat().st_size > 0 for path in folder.iterdir())
    assert written <= 2 + len(history)


def test_a_log_does_not_grow(tmp_path) -> None:
    log = ShardLog(tmp_path)
    state = {"client": torch.arange(10), "a": torch.zeros(10)}
    for change in range(1, 100):
        log.write(change, state, torch.tensor([change % 10]))
        assert len(list(tmp_path.iterdir())) <= 12


def test_a_log_that_lacks_a_change_or_is_damaged_is_not_read(tmp_path) -> None:
    log = ShardLog(tmp_path)
    state = {"client": torch.tensor([3]), "a": torch.tensor([1.0])}
    log.write(1, state, None)
    assert log.read(2) is None
    assert ShardLog(tmp_path / "elsewhere").read(1) is None
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"@")
    with pytest.raises(RunFolderError, match="checksum"):
        log.read(1)


# One shard, without Ray


def shard_in(folder: Path, engine=None) -> ShardActor:
    side = side_of()
    held = dict(enumerate(side.federation.clients))
    bare = replace(side, federation=replace(side.federation, clients=()))
    shard = Shard(0, tuple(held), 5, engine or Sequential(1), str(folder), 1)
    return ShardActor(shard, bare, held)


def handled(actor: ShardActor, accepted: int, request: Request) -> Reply:
    answer = actor.handle(accepted, replace(request, models=()), request.models)
    assert answer.change == accepted + 1
    return answer.reply


def test_a_call_that_comes_again_gives_the_same(tmp_path) -> None:
    reference = Sequential(1).build(side_of())
    expected = [reference.handle(train(round)) for round in (1, 2)]
    actor = shard_in(tmp_path / "log")
    assert_same(handled(actor, 0, train(1)), expected[0])
    assert_same(handled(actor, 0, train(1)), expected[0])  # the first answer was lost
    actor = shard_in(tmp_path / "log")  # died, and came back
    assert_same(handled(actor, 1, train(2)), expected[1])
    actor = shard_in(tmp_path / "log")  # died after training and writing, before the reply
    assert_same(handled(actor, 1, train(2)), expected[1])
    final = reference.state_dict()
    assert all(torch.equal(tensor, final[name]) for name, tensor in actor.state(2).items())


def test_a_shard_whose_log_is_on_another_machine_says_so(tmp_path) -> None:
    handled(shard_in(tmp_path / "here"), 0, train(1))
    with pytest.raises(EngineError, match=r"keep is lost.*set engine\.checkpoint_dir"):
        shard_in(tmp_path / "there").state(1)


def test_closing_a_shard_removes_its_log(tmp_path) -> None:
    actor = shard_in(tmp_path / "log")
    handled(actor, 0, train(1))
    assert len(list((tmp_path / "log").iterdir())) == 1
    actor.close()
    assert not (tmp_path / "log").exists()


# Dividing and putting together


def test_clients_are_divided_so_that_actors_have_as_many_samples() -> None:
    sizes = [5, 1, 4, 3, 3]
    federation = gaussian_federation(5)
    clients = []
    for client, size in zip(federation.clients, sizes, strict=True):
        part = replace(
            client.train, inputs=client.train.inputs[:size], labels=client.train.labels[:size]
        )
        clients.append(replace(client, train=part))
    federation = replace(federation, clients=tuple(clients))
    # 5 to the first, 4 and 3 to the second, 3 to the first (5 < 7), and 1 to the second (7 < 8).
    assert owners(federation, 2).tolist() == [0, 1, 1, 1, 0]


def test_sums_of_actors_are_added() -> None:
    one = Sums({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, {"a": 3.0, "b": 3.0})
    other = Sums({"a": torch.tensor([10.0])}, {"a": 4.0})
    found = added([one, other])
    assert (found.tensors["a"].item(), found.tensors["b"].item()) == (11.0, 2.0)
    assert found.weights == {"a": 7.0, "b": 3.0}


def test_rows_come_back_in_the_order_of_the_request() -> None:
    request = train(1, clients=[4, 0, 3])
    parts = [Reply(1, (ClientReply(0, {}, 9), ClientReply(3, {}, 9)))]
    parts += [Reply(1, (ClientReply(4, {}, 9),))]
    assert [row.client for row in put_together(request, parts).rows] == [4, 0, 3]


# Settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.actors=0", "engine.actors: must be null or at least 1, got 0"),
        ("engine.cpus_per_actor=0", "engine.cpus_per_actor: must be above 0, got 0.0"),
        ("engine.gpus_per_actor=1", "engine.gpus_per_actor: must be above 0 with device=cuda"),
        ("engine.max_restarts=-1", "engine.max_restarts: must be at least 0, got -1"),
        ("engine.patience=0", "engine.patience: must be above 0, got 0.0"),
        ("engine.inner.threads=0", "engine.inner.threads: must be at least 1, got 0"),
        ("engine@engine.inner=ray", "engine.inner: must be an engine that runs in one process"),
    ],
)
def test_settings_that_cannot_be_are_one_line(config, override, message) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        config("engine=ray", "device=cpu", override)
    assert "\n" not in str(raised.value)


def test_without_ray_the_error_names_the_extra(config, monkeypatch) -> None:
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fedtsd\[ray\]'"):
        config("engine=ray", "device=cpu")


def test_attackers_that_pass_for_a_client_have_its_data_at_hand(tmp_path) -> None:
    attack, side = Mimic(0.4, 1.0), side_of()
    lying = attack.attackers(5, 0).nonzero()[0].tolist()
    victim = attack.victim(5, 0)
    whole = replace(side, attack=attack, attackers=frozenset(lying))
    honest = [client for client in range(5) if client not in (*lying, victim)]
    assert holders_of(side, lying) == lying
    assert holders_of(whole, honest) == honest
    assert holders_of(whole, lying) == [*lying, victim]
    held = {holder: side.federation.clients[holder] for holder in holders_of(whole, lying)}
    bare = replace(whole, federation=replace(side.federation, clients=()))
    shard = Shard(0, tuple(lying), 5, Sequential(1), str(tmp_path / "shard"), 1)
    request = train(1, lying)
    found = handled(ShardActor(shard, bare, held), 0, request)
    assert_same(found, Sequential(1).build(whole).handle(request))
