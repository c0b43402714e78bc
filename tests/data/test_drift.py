import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedtsd.data.dataset import Digits
from fedtsd.data.drift import NewLaw
from fedtsd.data.federation import Deal, Shares, build_federation
from fedtsd.data.partition import LabelGroups, Pathological
from fedtsd.data.public import HeldOut
from fedtsd.data.shift import Rotation
from fedtsd.loading import load_federation
from tests.runs import run_toy, table

DIGITS = Digits("digits", 200, "public")
ARRAYS = DIGITS.load(Path("unused"))


def build(partition, drift, shift=None, seed=0):
    deal = Deal(DIGITS, HeldOut(None), partition, Shares(0.4, 0.1), shift, drift)
    return build_federation(ARRAYS, deal, Path("unused"), seed)


def classes(data) -> set[int]:
    return set(data.train.labels.tolist())


def test_drifting_clients_hold_other_samples_from_the_round_on() -> None:
    federation = build(Pathological(10, 10, None, None, 2), NewLaw(5, 0.3))
    assert federation.num_clients == 10
    assert len(federation.moves) == 3
    for client in range(10):
        before, after = federation.data_of(client, 4), federation.data_of(client, 5)
        same = torch.equal(before.train.inputs, after.train.inputs)
        assert same == (client not in federation.moves)
        rows = [{r.numpy().tobytes() for r in d.train.inputs} for d in (before, after)]
        assert client not in federation.moves or not rows[0] & rows[1]
    assert federation.label_counts("train").shape == (10, 10)


def test_a_drifting_client_changes_its_planted_group() -> None:
    federation = build(LabelGroups(12, 10, None, None, 3, 0.0), NewLaw(4, 0.5))
    groups = np.arange(12) % 3
    for client in range(12):
        moved = client in federation.moves
        assert (federation.groups[client] != groups[client]) == moved
        after = classes(federation.data_of(client, 4))
        mates = [i for i in range(12) if federation.groups[i] == federation.groups[client]]
        assert all(classes(federation.data_of(i, 4)) == after for i in mates)


def test_shifts_drift_with_their_clients() -> None:
    federation = build(Pathological(8, 10, None, None, None), NewLaw(3, 1.0), Rotation(2, 180.0))
    was = np.arange(8) % 2
    assert (federation.groups != was).all()


def test_who_drifts_is_a_share_drawn_at_random() -> None:
    partition = Pathological(20, 10, None, None, 2)
    drawn = [set(build(partition, NewLaw(3, 0.25), seed=seed).moves) for seed in (0, 0, 1)]
    assert all(len(ids) == 5 for ids in drawn)
    assert drawn[0] == drawn[1] != drawn[2]
    assert build(partition, NewLaw(3, 0.0)).moves == {}


@pytest.mark.parametrize(("round", "share"), [(1, 0.5), (3, -0.1), (3, 1.1)])
def test_bad_settings_are_refused(round: int, share: float) -> None:
    with pytest.raises(ValueError, match=r"round: must be|share: must be"):
        NewLaw(round, share)


def test_a_run_notices_the_drift_and_tells_of_it(config, tmp_path) -> None:
    cfg = config(
        "method=local", "rounds=6", "drift=new_law", "drift.round=5", "partition=label_groups",
        "partition.num_clients=8",
    )  # fmt: skip
    federation = load_federation(cfg)
    run_toy(cfg, federation, tmp_path)
    rows = table(tmp_path, "clients").query("split == 'test'")
    rows = rows.pivot_table(index="round", columns="client", values="accuracy")
    drifted = sorted(federation.moves)
    assert len(drifted) == 4
    # Other classes than they ever saw; one round of training on them is not enough.
    assert rows.loc[5, drifted].mean() < rows.loc[4, drifted].mean() - 0.2
    others = rows.drop(columns=drifted)
    assert (others.loc[5] - others.loc[4]).abs().mean() < 0.1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["drift"] == {"round": 5, "clients": drifted}
    later = pd.read_csv(tmp_path / "drift.csv").query("split == 'train'")
    for client in drifted:
        held = set(later[later["client"] == client]["label"])
        assert held == classes(federation.data_of(client, 5))
