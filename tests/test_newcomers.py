"""Clients that are kept out of training, join later, and are reported apart."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from fedtsd.data.federation import Federation
from fedtsd.execution import build
from fedtsd.server import ABSENT
from fedtsd.traffic import SENT_LOSSES
from tests.runs import StopAfter, StoppedError, run_toy, table

COMMON = ("model.hidden=[8]", "similarity.public_batch=40", "training.lr=0.02")
FLIPPED = tuple(range(0, 12, 2))


def late(federation: Federation, *newcomers: int) -> Federation:
    return dataclasses.replace(federation, newcomers=newcomers)


def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_who_never_joins_sends_nothing_and_is_reported_apart(config, toy, tmp_path) -> None:
    cfg = config("method=fedavg", "rounds=4", "cohort.newcomers=0.25", *COMMON)
    run_toy(cfg, late(toy(8), 2, 5), tmp_path)
    assert set(table(tmp_path, "traffic")["client"]) == {0, 1, 3, 4, 6, 7}
    assert set(table(tmp_path, "assignments")["client"]) == {0, 1, 3, 4, 6, 7}
    assert set(table(tmp_path, "clients")["client"]) == {0, 1, 3, 4, 6, 7}
    rows = table(tmp_path, "newcomers")
    assert set(rows["client"]) == {2, 5}
    assert set(rows["round"]) == {1, 2, 3, 4}
    found = summary(tmp_path)["newcomers"]
    last = rows[(rows["round"] == 4) & (rows["split"] == "test")]["accuracy"]
    assert found["last"]["accuracy_mean"] == pytest.approx(last.mean())
    assert (found["clients"], found["join_round"], found["last"]["num_clients"]) == (
        [2, 5],
        None,
        2,
    )
    # The task is easy and theirs too: the model of the others serves them.
    assert last.mean() > 0.9


def test_the_others_are_trained_as_if_newcomers_did_not_exist(config, toy, tmp_path) -> None:
    cfg = config("method=fedavg", "rounds=3", *COMMON)
    federation = toy(6)
    run_toy(cfg, late(federation, 5), tmp_path / "late")
    alone = dataclasses.replace(federation, clients=federation.clients[:5])
    run_toy(cfg, alone, tmp_path / "alone")
    late_rows, rows = (table(tmp_path / name, "clients") for name in ("late", "alone"))
    pd.testing.assert_frame_equal(late_rows, rows)


def test_newcomers_join_the_cluster_of_their_kind(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedtsdp", "rounds=9", "cohort.newcomers=0.2", "cohort.join_round=7", *COMMON
    )
    newcomers = (3, 4, 10)
    run_toy(cfg, late(toy(12, FLIPPED), *newcomers), tmp_path)
    rows = table(tmp_path, "assignments")
    assert set(rows[rows["round"] == 6]["client"]) == set(range(12)) - set(newcomers)
    final = rows[rows["round"] == 9].set_index("client")["cluster"]
    assert len(final) == 12
    for cluster in final.unique():  # there are two kinds, and no cluster holds both
        assert len({client in FLIPPED for client in final.index[final == cluster]}) == 1
    clusters = rows[rows["round"] == 6]["cluster"].nunique()
    assert set(table(tmp_path, "traffic").query("round >= 7")["client"]) == set(range(12))
    # Joining costs the models of all clusters down, and their losses up.
    crossed = table(tmp_path, "exchanged").query("round == 7")
    crossed = crossed[crossed["item"] == SENT_LOSSES]
    assert crossed[["num_clients", "num_bytes"]].to_numpy().tolist() == [[3, 3 * clusters * 4]]
    late_rows = table(tmp_path, "newcomers").query("round == 9 and split == 'test'")
    assert late_rows["accuracy"].min() > 0.8


def test_absent_clients_do_not_keep_a_cluster_from_splitting(config, toy, tmp_path) -> None:
    cfg = config("method=fedtsdp_stage2", "rounds=9", "cohort.newcomers=0.1", *COMMON)
    run_toy(cfg, late(toy(12, FLIPPED), 3), tmp_path)
    final = table(tmp_path, "assignments").query("round == 9").set_index("client")["cluster"]
    assert final.nunique() == 2
    assert {final[i] for i in FLIPPED} == {final[0]}
    placed = table(tmp_path, "newcomers").query("round == 9")["cluster"]
    assert set(placed) == {final[1]}


@pytest.mark.parametrize("join_round", [3, 6])
def test_a_resumed_run_admits_them_all_the_same(join_round, config, toy, tmp_path) -> None:
    overrides = ("method=fedtsdp", "cohort.newcomers=0.2", f"cohort.join_round={join_round}")
    federation = late(toy(12, FLIPPED), 1, 6)
    whole = config("rounds=8", *overrides, *COMMON)
    run_toy(whole, federation, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run_toy(whole, federation, tmp_path / "parts", StopAfter(5))
    run_toy(whole, federation, tmp_path / "parts")
    for name in ("clients", "newcomers", "assignments", "exchanged"):
        whole_text, parts_text = (
            (tmp_path / run / f"{name}.csv").read_text() for run in ("whole", "parts")
        )
        assert whole_text == parts_text, name


def test_who_trains_alone_is_sent_nothing_when_joining_either(config, toy, tmp_path) -> None:
    cfg = config(
        "method=local", "rounds=4", "cohort.newcomers=0.25", "cohort.join_round=3", *COMMON
    )
    run_toy(cfg, late(toy(4), 1), tmp_path)
    rounds = table(tmp_path, "rounds")
    assert (rounds["bytes_up"].sum(), rounds["bytes_down"].sum()) == (0, 0)
    assert set(table(tmp_path, "traffic").query("round >= 3")["client"]) == {0, 1, 2, 3}


def test_clusters_name_clients_that_are_there(config, toy) -> None:
    cfg = config("rounds=2", "cohort.newcomers=0.2", *COMMON)
    experiment = build(cfg, late(toy(5), 2))
    server = experiment.start.server
    assert server.assignment.tolist() == [0, 0, ABSENT, 0, 0]
    assert experiment.train_request(server, 1).clients == (0, 1, 3, 4)
    assert server.members(0).tolist() == [0, 1, 3, 4]
    with pytest.raises(ValueError, match="clients that have not joined cannot be asked"):
        experiment.evaluate_request(server, 1, np.array([1, 2]))


def test_who_comes_late_follows_the_seed(config) -> None:
    deal = config("cohort.newcomers=0.25").deal
    drawn = [deal.newcomers_of(20, seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(np.unique(drawn[0])) == 5
