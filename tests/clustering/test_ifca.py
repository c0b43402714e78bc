import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.clustering.ifca import IFCA
from fedtsd.clustering.policy import Origin
from fedtsd.errors import ConfigError
from fedtsd.execution import build
from fedtsd.messages import ClientReply, Probe, Reply
from fedtsd.report.page.grouping import grouping
from fedtsd.report.tables import RunTables
from fedtsd.run_folder import TABLES, RunFolder
from fedtsd.server import ABSENT, start_state
from fedtsd.traffic import SENT_LOSSES
from tests.clustering.naive import close, loss_on, mean_of, trained, unequal
from tests.runs import TIME_COLUMNS, run_toy, run_twice, table, tables_of
from tests.test_experiment import bits

TOY = (
    "method=ifca", "partition.num_clients=8", "model.hidden=[8]", "training.lr=0.02",
    "clustering.num_clusters=2",
)  # fmt: skip
FLIPPED = (1, 3, 4, 6)
PARAMETERS = 2 * 8 + 8 + 8 * 2 + 2


def server(n: int, newcomers: tuple[int, ...] = ()):
    return start_state({"w": torch.zeros(1)}, np.zeros((n, 1), dtype=bool), newcomers)


def answers(round: int, losses: dict[int, tuple[float, ...]]) -> Reply:
    rows = tuple(ClientReply(client, {}, 1, losses=each) for client, each in losses.items())
    return Reply(round, rows)


def partition_of(folder, round: int) -> list[list[int]]:
    rows = table(folder, "assignments").query(f"round == {round}")
    return sorted(part["client"].tolist() for _, part in rows.groupby("cluster"))


def test_a_client_goes_where_its_loss_is_lowest_and_of_equals_to_the_lowest_number() -> None:
    policy = IFCA(3)
    state = policy.answered(server(4), answers(5, {0: (2.0, 1.0, 3.0), 2: (2.0, 1.0, 1.0)}))
    assert state.assignment.tolist() == [1, 0, 1, 0]  # clients 1 and 3 were not asked
    assert state.assignment_round.tolist() == [5, 0, 5, 0]
    state = policy.answered(state, answers(6, {0: (2.0, 1.0, 3.0), 2: (1.0, 1.0, 1.0)}))
    assert state.assignment.tolist() == [1, 0, 0, 0]
    assert state.assignment_round.tolist() == [5, 0, 6, 0]  # client 0 stayed with its model


def test_models_start_from_different_networks_and_the_first_is_everybodys() -> None:
    origin = Origin(lambda number: {"w": torch.full((1,), float(number))}, None)
    state = IFCA(3).start(server(5, newcomers=(4,)), origin)
    assert [float(centre["w"]) for centre in state.centres] == [0, 1, 2]
    assert state.assignment.tolist() == [0, 0, 0, 0, ABSENT]


@given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
def test_permuting_clients_permutes_the_clusters(order: list[int], seed: int) -> None:
    losses = np.random.default_rng(seed).uniform(size=(6, 3))
    told = {c: tuple(losses[c]) for c in range(6)}
    moved = {c: tuple(losses[order[c]]) for c in range(6)}
    policy = IFCA(3)
    found = policy.answered(server(6), answers(1, told)).assignment
    permuted = policy.answered(server(6), answers(1, moved)).assignment
    assert permuted.tolist() == found[order].tolist()


@pytest.mark.parametrize("number", [0, 9])
def test_the_number_of_clusters_must_fit(number: int, config) -> None:
    with pytest.raises(ConfigError, match=r"clustering.*num_clusters: must be at (least|most)"):
        config(*TOY, f"clustering.num_clusters={number}")


def test_a_naive_ifca_agrees(config, toy) -> None:
    """Algorithm 1 of the paper, option II: estimate clusters, train, average in each cluster."""
    cfg = config(*TOY, "engine=sequential", "clustering.num_clusters=3", "rounds=4")
    sizes = (40, 13, 31, 22, 40, 9, 17, 35)
    federation = unequal(toy(8, flipped=FLIPPED), sizes)
    experiment = build(cfg, federation)
    state = experiment.start.server
    centres = [dict(centre) for centre in state.centres]
    for r in range(1, 5):
        state, holders = experiment.consult(state, experiment.cohort(state, r), r)
        request = experiment.train_request(state, r, holders)
        state = cfg.aggregation.update(
            state, experiment.channel.exchange(request), experiment.layers
        )
        chosen = []
        for client in range(8):
            losses = [loss_on(cfg, federation, client, centre) for centre in centres]
            chosen.append(losses.index(min(losses)))
        models = [trained(cfg, federation, c, r, centres[chosen[c]]) for c in range(8)]
        for k in range(3):
            members = [c for c in range(8) if chosen[c] == k]
            if members:
                centres[k] = mean_of([models[c] for c in members], [sizes[c] for c in members])
        assert state.assignment.tolist() == chosen
        for found, expected in zip(state.centres, centres, strict=True):
            close(found, expected)
    experiment.engine.close()
    assert len(set(chosen)) > 1


def test_flipped_clients_are_found(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "rounds=6", "seed=0")
    run_toy(cfg, toy(8, flipped=FLIPPED), tmp_path)
    assert partition_of(tmp_path, 6) == [[0, 2, 5, 7], [1, 3, 4, 6]]
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] > 0.9


def test_all_models_go_down_once_and_their_losses_up(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "rounds=2", "clustering.num_clusters=3", "cohort.size=5")
    run_toy(cfg, toy(8, flipped=FLIPPED), tmp_path)
    traffic, exchanged = table(tmp_path, "traffic"), table(tmp_path, "exchanged")
    assert len(traffic) == 2 * 5  # one row for each client, though there were two exchanges
    assert set(traffic["bytes_down"]) == {3 * 4 * PARAMETERS}
    assert set(traffic["bytes_up"]) == {4 * PARAMETERS + 4 * 3}
    for _, rows in exchanged.groupby("round"):
        down = rows[rows["direction"] == "down"]
        assert set(down["item"]) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
        assert not down["item"].duplicated().any()  # nothing is sent again for training
        assert down["num_bytes"].sum() == 5 * 3 * 4 * PARAMETERS
        (losses,) = rows[rows["item"] == SENT_LOSSES]["num_bytes"]
        assert losses == 5 * 3 * 4
    assert table(tmp_path, "rounds")["bytes_down"].tolist() == [5 * 3 * 4 * PARAMETERS] * 2


def test_one_cluster_is_fedavg_to_the_bit(config, toy, tmp_path) -> None:
    overrides = {"ifca": ("clustering.num_clusters=1",), "fedavg": ()}
    for method, more in overrides.items():
        rest = TOY[1:-1]
        cfg = config(*rest, f"method={method}", "rounds=3", *more)
        run_toy(cfg, toy(8, flipped=FLIPPED), tmp_path / method)
    for name in TABLES:
        found, expected = (
            table(tmp_path / m, name).drop(columns=TIME_COLUMNS, errors="ignore") for m in overrides
        )
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_only_the_cohort_is_asked_and_clusters_stay_a_partition(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "rounds=6", "cohort.size=3")
    run_toy(cfg, toy(8, flipped=FLIPPED), tmp_path)
    rows = table(tmp_path, "assignments").pivot(index="round", columns="client", values="cluster")
    assert rows.shape == (7, 8)
    assert rows.notna().all(axis=None)
    traffic = table(tmp_path, "traffic")
    for r in range(1, 7):
        moved = set(rows.columns[rows.loc[r] != rows.loc[r - 1]])
        assert moved <= set(traffic.query(f"round == {r}")["client"])
    assert (rows.nunique() > 1).any()


def test_clients_are_evaluated_with_the_model_they_would_choose(config, toy) -> None:
    cfg = config(*TOY, "cohort.size=2", "engine=sequential")
    federation = toy(8, flipped=FLIPPED)
    experiment = build(cfg, federation)
    state = experiment.start.server
    found = experiment.evaluate(state, 1)
    expected = [
        int(np.argmin([loss_on(cfg, federation, c, centre) for centre in state.centres]))
        for c in range(8)
    ]
    assert found.placed.assignment.tolist() == expected
    assert len(set(expected)) > 1
    assert experiment.channel.drain().clients == ()  # a look is no traffic
    experiment.engine.close()


def test_looking_changes_no_training(config, toy, tmp_path) -> None:
    for every in ("1", "3"):
        cfg = config(*TOY, "rounds=3", f"eval_every={every}", "cohort.size=4")
        run_toy(cfg, toy(8, flipped=FLIPPED), tmp_path / every)
    ends = [RunFolder(tmp_path / every).load_checkpoint() for every in ("1", "3")]
    assert bits(ends[0]) == bits(ends[1])


def test_nobody_chooses_a_model_and_it_waits_as_it_is(config, toy, tmp_path) -> None:
    """Clients alike gather in one cluster: models that they never choose do not move."""
    cfg = config(*TOY, "rounds=4", "clustering.num_clusters=4", "similarity.public_batch=20")
    run_toy(cfg, toy(8), tmp_path)
    (members,) = partition_of(tmp_path, 4)
    assert members == list(range(8))
    start = build(cfg, toy(8)).start.server.centres
    end = RunFolder(tmp_path).load_checkpoint()["server"]
    chosen = set(table(tmp_path, "assignments").query("round > 0")["cluster"])
    assert len(chosen) < 4
    for k, (before, after) in enumerate(zip(start, end["centres"], strict=True)):
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (k not in chosen)
    assert table(tmp_path, "rounds")["num_clusters"].tolist()[-1] == 1
    assert json.loads((tmp_path / "summary.json").read_text())["clusters"] == [members]


@pytest.mark.parametrize("engine", ["sequential", "stacked", "parallel"])
def test_empty_clusters_fit_every_engine_and_every_policy(
    engine: str, config, toy, tmp_path
) -> None:
    cfg = config(
        *TOY, "rounds=4", "clustering.num_clusters=4", f"engine={engine}", "prior=skewed",
        "personalization=adaptive", "similarity.public_batch=20",
    )  # fmt: skip
    run_toy(cfg, toy(8), tmp_path)
    assert len(partition_of(tmp_path, 4)) < 4
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] > 0.9


def test_the_page_explains_clusters_that_nobody_tested(config, toy, tmp_path) -> None:
    for name, flipped in (("two", FLIPPED), ("one", ())):
        path = tmp_path / name
        run_toy(config(*TOY, "rounds=3"), toy(8, flipped=flipped), path)
        (path / "config.yaml").write_text("clustering: {num_clusters: 2}\n")
    two, one = (grouping(RunTables.read(tmp_path / name)) for name in ("two", "one"))
    assert {group.sites for group in two.groups} == {(0, 2, 5, 7), (1, 3, 4, 6)}
    assert two.why[0].key == "clusters.split.untested"
    assert one.why[0].key == "clusters.none.plain"


def test_newcomers_wait_and_then_choose(config, toy, tmp_path) -> None:
    late = dataclasses.replace(toy(8, flipped=FLIPPED), newcomers=(5, 6))
    cfg = config(*TOY, "rounds=6", "cohort.newcomers=0.25", "cohort.join_round=5")
    run_toy(cfg, late, tmp_path)
    assert {5, 6} & set(table(tmp_path, "assignments").query("round < 5")["client"]) == set()
    assert partition_of(tmp_path, 6) == [[0, 2, 5, 7], [1, 3, 4, 6]]


def test_the_question_is_a_look_when_evaluating() -> None:
    clients = np.array([1, 2])
    for look in (False, True):
        question = IFCA(2).question(server(3), clients, 1, look)
        assert question.task == Probe(look)
        assert question.clients.tolist() == [1, 2]
    assert IFCA(1).question(server(3), clients, 1, False) is None


def test_resuming_changes_no_bit(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "rounds=5", "checkpoint_every=2", "cohort.size=5")
    federation = toy(8, flipped=FLIPPED)
    whole, parts = run_twice(cfg, federation, tmp_path, stop=3)
    found = tables_of(parts)
    for name, expected in tables_of(whole).items():
        pd.testing.assert_frame_equal(found[name], expected, check_exact=True)
    ends = [RunFolder(folder).load_checkpoint() for folder in (whole, parts)]
    assert bits(ends[0]) == bits(ends[1])


def test_a_probe_is_answered_with_a_clients_own_layers(config, toy) -> None:
    """IFCA under FedPer's heads: they do not cross, and are not those of the centres."""
    cfg = config(*TOY, "engine=sequential", "personalization=last", "personalization.layers=1")
    federation = toy(8, flipped=FLIPPED)
    experiment = build(cfg, federation)
    server, holders = experiment.consult(experiment.start.server, np.arange(8), 1)
    reply = experiment.channel.exchange(experiment.train_request(server, 1, holders))
    server = cfg.aggregation.update(server, reply, experiment.layers)
    items = experiment.channel.drain().items
    down = {item.item for item in items if item.direction == "down"}
    head = set(experiment.layers[-1].tensors)
    assert down == server.centres[0].keys() - head
    kept = experiment.engine.state_dict()
    question = cfg.clustering.question(server, np.arange(8), 2, True)
    asked = experiment.request(server, 2, question.task, question.clients)
    for row in experiment.channel.exchange(asked).rows:
        own = {name: kept[name][row.client] for name in head}
        expected = [loss_on(cfg, federation, row.client, {**c, **own}) for c in server.centres]
        assert row.losses == pytest.approx(expected, rel=1e-5)
        plain = [loss_on(cfg, federation, row.client, dict(c)) for c in server.centres]
        assert row.losses != pytest.approx(plain, rel=1e-3)
