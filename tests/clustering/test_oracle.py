import dataclasses

import numpy as np
import pytest
import torch

from fedtsd.clustering.oracle import Oracle
from fedtsd.clustering.policy import Origin
from fedtsd.errors import ConfigError
from tests.clustering.rounds import final_groups, resumed_equals_whole, server_of
from tests.runs import run_toy, table

START = {"w": torch.tensor([3.0])}
SMALL = ("method=oracle", "partition=label_groups", "model.hidden=[8]", "training.lr=0.02")
FLIPPED = (0, 2, 5)
PLANTED = {frozenset(FLIPPED), frozenset({1, 3, 4, 6, 7})}


def origin(groups) -> Origin:
    return Origin(lambda number: START, None if groups is None else np.array(groups))


def planted(federation, flipped=FLIPPED, **changes):
    groups = np.isin(np.arange(len(federation.clients)), flipped).astype(np.int64)
    return dataclasses.replace(federation, groups=groups, **changes)


def test_clusters_are_the_groups_before_round_one() -> None:
    server = Oracle().start(server_of(START, 5), origin([1, 0, 2, 0, 1]))
    assert server.assignment.tolist() == [1, 0, 2, 0, 1]
    assert server.centres == (START,) * 3


def test_groups_of_newcomers_alone_have_no_cluster() -> None:
    server = Oracle().start(server_of(START, 5, newcomers=[0, 3]), origin([0, 1, 2, 0, 2]))
    assert server.assignment.tolist() == [-1, 0, 1, -1, 1]
    assert len(server.centres) == 2


def test_it_never_decides_again(config, toy, tmp_path) -> None:
    run_toy(config("rounds=4", *SMALL), planted(toy(8, FLIPPED)), tmp_path)
    rows = table(tmp_path, "assignments")
    assert rows.groupby("client")["cluster"].nunique().max() == 1
    assert set(rows["round"]) == {0, 1, 2, 3, 4}
    assert final_groups(tmp_path) == PLANTED
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] > 0.9


def test_each_cluster_is_trained_as_if_it_were_alone(config, toy, tmp_path) -> None:
    federation = planted(toy(4, flipped=(2, 3)), flipped=(2, 3))
    run_toy(config("rounds=3", *SMALL), federation, tmp_path / "both")
    first = dataclasses.replace(federation, clients=federation.clients[:2], groups=np.zeros(2))
    run_toy(config("rounds=3", *SMALL, "method=fedavg"), first, tmp_path / "first")
    both = table(tmp_path / "both", "clients").query("client < 2")
    alone = table(tmp_path / "first", "clients")
    columns = ["round", "client", "split", "accuracy", "loss"]
    assert both[columns].to_numpy().tolist() == alone[columns].to_numpy().tolist()


def test_newcomers_join_by_the_fit_of_models(config, toy, tmp_path) -> None:
    cfg = config("rounds=6", "cohort.newcomers=0.25", "cohort.join_round=4", *SMALL)
    run_toy(cfg, planted(toy(8, FLIPPED), newcomers=(2, 6)), tmp_path)
    assert final_groups(tmp_path) == PLANTED


def test_resuming_changes_no_bit(config, toy, tmp_path) -> None:
    cfg = config("rounds=4", "checkpoint_every=2", "cohort.size=5", *SMALL)
    assert resumed_equals_whole(cfg, planted(toy(8, FLIPPED)), tmp_path, stop=3)


def test_data_without_groups_is_refused(config) -> None:
    with pytest.raises(ConfigError, match=r"clustering\._target_: oracle needs .* planted groups"):
        config("method=oracle", "partition=dirichlet")
    assert isinstance(config("method=oracle", "shift=permuted_labels").clustering, Oracle)
    with pytest.raises(ValueError, match="no planted groups"):
        Oracle().start(server_of(START, 3), origin(None))
