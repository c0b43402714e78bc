"""Clients that lie: what they train on, what they send, and who is not led astray."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from fedtsd.attack import Attack, Gaussian, LabelFlip, Scaling, SignFlip
from fedtsd.data.dataset import Facts
from fedtsd.data.holdings import Split
from fedtsd.errors import ConfigError
from tests.runs import run_toy, table

TRAINED = {"w": torch.tensor([3.0, 5.0]), "bn.running_var": torch.tensor([2.0])}
RECEIVED = {
    "w": torch.tensor([1.0, 1.0]),
    "bn.running_var": torch.tensor([1.0]),
    "private": torch.ones(1),
}
RNG = torch.Generator().manual_seed(0)
SMALL = ("partition.num_clients=6", "model.hidden=[8]", "rounds=4", "similarity.public_batch=20")


def told(attack: Attack, seed: int = 0) -> dict[str, list[float]]:
    sent = attack.sent(TRAINED, RECEIVED, torch.Generator().manual_seed(seed))
    return {name: tensor.tolist() for name, tensor in sent.items()}


def test_lies_about_updates_by_hand() -> None:
    # The honest update of w is (2, 4).
    assert told(SignFlip(0.2, 1.0))["w"] == [-1, -3]
    assert told(SignFlip(0.2, 0.5))["w"] == [0, -1]
    assert told(Scaling(0.2, 10.0))["w"] == [21, 41]
    noise = np.array(told(Gaussian(0.2, 3.0))["w"]) - 1
    assert np.linalg.norm(noise) == pytest.approx(3 * np.sqrt(20))
    assert told(Gaussian(0.2, 3.0), seed=1) != told(Gaussian(0.2, 3.0))


@pytest.mark.parametrize("attack", [SignFlip(0.2, 9.0), Scaling(0.2, 9.0), Gaussian(0.2, 9.0)])
def test_running_statistics_stay_honest_and_nothing_else_is_sent(attack) -> None:
    found = told(attack)
    assert set(found) == {"w", "bn.running_var"}
    assert found["bn.running_var"] == [2.0]
    assert RECEIVED["w"].tolist() == [1, 1]  # nothing is changed in place


def test_labels_are_turned_round_and_others_are_left_alone() -> None:
    split = Split(torch.zeros(4, 2), torch.tensor([0, 1, 9, 4]))
    assert LabelFlip(0.2).taught(split, 10, RNG).labels.tolist() == [9, 8, 0, 5]
    assert split.labels.tolist() == [0, 1, 9, 4]
    assert SignFlip(0.2, 1.0).taught(split, 10, RNG) is split
    assert told(LabelFlip(0.2)) == {name: tensor.tolist() for name, tensor in TRAINED.items()}
    with pytest.raises(ValueError, match="where there are classes only"):
        LabelFlip(0.2).check(Facts(9, (3,), ("a",), regression=True))


def test_who_attacks_follows_from_the_seed() -> None:
    attack = SignFlip(0.3, 1.0)
    first = attack.attackers(10, seed=4)
    assert first.sum() == 3
    assert np.array_equal(first, attack.attackers(10, seed=4))
    assert any(not np.array_equal(first, attack.attackers(10, seed=s)) for s in range(5))
    assert attack.attackers(3, seed=0).sum() == 0  # rounded down
    assert np.array_equal(first, LabelFlip(0.3).attackers(10, seed=4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SignFlip(1.0, 1.0), r"share: must be in \[0, 1\)"),
        (lambda: LabelFlip(-0.1), r"share: must be in \[0, 1\)"),
        (lambda: Scaling(0.1, 0.0), "factor: must be above 0"),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def run(config, toy, path, *overrides: str, clients: int = 6):
    cfg = config(*SMALL, *overrides)
    run_toy(cfg, toy(clients), path)
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("kind", ["label_flip", "sign_flip", "scaling", "gaussian"])
def test_engines_agree_on_what_attackers_do(config, toy, tmp_path, kind: str) -> None:
    how = "method=fedper", f"attack={kind}", "attack.share=0.34"
    for engine in ("sequential", "parallel", "stacked"):
        run(config, toy, tmp_path / engine, *how, f"engine={engine}")
    reference = table(tmp_path / "sequential", "clients")
    for engine in ("parallel", "stacked"):
        found = table(tmp_path / engine, "clients")
        pd.testing.assert_frame_equal(found, reference, rtol=1e-3, atol=1e-3)


def test_attackers_are_in_no_score_and_are_named(config, toy, tmp_path) -> None:
    summary = run(config, toy, tmp_path, "method=fedavg", "attack=sign_flip", "attack.share=0.34")
    clients = table(tmp_path, "clients")["client"].unique().tolist()
    assert len(summary["attackers"]) == 2
    assert sorted(clients + summary["attackers"]) == list(range(6))
    assert set(summary["accuracy_per_client"]) == {str(c) for c in clients}


def test_only_the_honest_are_evaluated_where_some_are_chosen(config, toy, tmp_path) -> None:
    how = "method=fedavg", "attack=sign_flip", "attack.share=0.5", "evaluation.clients=3"
    summary = run(config, toy, tmp_path, *how)
    assert len(summary["accuracy_per_client"]) == 3
    with pytest.raises(ConfigError, match="1 to the 3 clients there are beside attackers, got 4"):
        config(*SMALL, *how[:3], "evaluation.clients=4")
    with pytest.raises(ConfigError, match="leaves none of 3 clients that is honest"):
        config(*SMALL, *how[:3], "cohort.newcomers=0.5")


def test_the_attack_of_nobody_is_no_attack(config, toy, tmp_path) -> None:
    run(config, toy, tmp_path / "a", "method=fedavg")
    run(config, toy, tmp_path / "b", "method=fedavg", "attack=scaling", "attack.share=0")
    first, second = (table(tmp_path / name, "clients") for name in "ab")
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_personal_layers_of_attackers_are_their_own(config, toy, tmp_path) -> None:
    """What an attacker keeps is what it trained: nothing is sent of it, so nothing is a lie."""
    from fedtsd.experiment import build
    from fedtsd.messages import Request

    cfg = config(*SMALL, "method=fedper", "attack=scaling", "attack.factor=1e3", "attack.share=0.5")
    honest = dataclasses.replace(cfg, attack=None)
    kept = []
    for one in (cfg, honest):
        experiment = build(one, toy(6))
        request: Request = experiment.train_request(experiment.start.server, 1)
        experiment.channel.exchange(request)
        kept.append(experiment.engine.state_dict())
        experiment.engine.close()
    for name, tensor in kept[1].items():
        assert torch.equal(kept[0][name], tensor), name


@pytest.mark.parametrize("option", ["median", "trimmed_mean", "multi_krum"])
def test_robust_means_bear_what_the_mean_does_not(config, toy, tmp_path, option: str) -> None:
    how = "method=fedavg", "attack=sign_flip", "attack.factor=8.0", "attack.share=0.2", "rounds=6"
    many = "partition.num_clients=10"
    plain = run(config, toy, tmp_path / "mean", *how, many, clients=10)
    borne = run(config, toy, tmp_path / "robust", *how, many, f"aggregation={option}", clients=10)
    assert borne["last"]["accuracy_mean"] > plain["last"]["accuracy_mean"] + 0.2
