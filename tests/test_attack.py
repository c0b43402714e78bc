"""Clients that lie: what they train on, what they send, and who is not led astray."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.attack import (
    Attack,
    Backdoor,
    Decoy,
    Gaussian,
    Inflate,
    LabelFlip,
    Mimic,
    Scaling,
    SignFlip,
)
from fedtsd.data.dataset import Facts
from fedtsd.data.holdings import Split
from fedtsd.errors import ConfigError
from fedtsd.execution import build
from fedtsd.loading import load_federation
from fedtsd.messages import Describe, Probe
from tests.own import write_clinics
from tests.runs import run_toy, table

TRAINED = {"w": torch.tensor([3.0, 5.0]), "bn.running_var": torch.tensor([2.0])}
RECEIVED = {
    "w": torch.tensor([1.0, 1.0]),
    "bn.running_var": torch.tensor([1.0]),
    "private": torch.ones(1),
}
SMALL = ("partition.num_clients=6", "model.hidden=[8]", "rounds=4", "similarity.public_batch=20")


IMAGES = Facts(99, (1, 4, 4), ("a", "b", "c"))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def backdoor(share=0.2, factor=1.0, poisoned=0.5, target=2, size=2, brightness=7.0) -> Backdoor:
    return Backdoor(share, factor, poisoned, target, size, brightness)


def told(attack: Attack, seed: int = 0) -> dict[str, list[float]]:
    sent = attack.sent(TRAINED, RECEIVED, rng(seed))
    return {name: tensor.tolist() for name, tensor in sent.items()}


def test_lies_about_updates_by_hand() -> None:
    # The honest update of w is (2, 4).
    assert told(SignFlip(0.2, 1.0))["w"] == [-1, -3]
    assert told(SignFlip(0.2, 0.5))["w"] == [0, -1]
    assert told(Scaling(0.2, 10.0))["w"] == [21, 41]
    noise = np.array(told(Gaussian(0.2, 3.0))["w"]) - 1
    assert np.linalg.norm(noise) == pytest.approx(3 * np.sqrt(20))
    assert told(Gaussian(0.2, 3.0), seed=1) != told(Gaussian(0.2, 3.0))


@pytest.mark.parametrize(
    "attack",
    [SignFlip(0.2, 9.0), Scaling(0.2, 9.0), Gaussian(0.2, 9.0), Mimic(0.2, 9.0), backdoor()],
)
def test_running_statistics_stay_honest_and_nothing_else_is_sent(attack) -> None:
    found = told(attack)
    assert set(found) == {"w", "bn.running_var"}
    assert found["bn.running_var"] == [2.0]
    assert RECEIVED["w"].tolist() == [1, 1]  # nothing is changed in place


def test_labels_are_turned_round_and_others_are_left_alone() -> None:
    split = Split(torch.zeros(4, 2), torch.tensor([0, 1, 9, 4]))
    assert LabelFlip(0.2).taught(split, 10, rng()).labels.tolist() == [9, 8, 0, 5]
    assert split.labels.tolist() == [0, 1, 9, 4]
    assert SignFlip(0.2, 1.0).taught(split, 10, rng()) is split
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
        (lambda: Mimic(0.1, -1.0), "factor: must be above 0"),
        (lambda: Inflate(0.1, 0), "factor: must be at least 1"),
        (lambda: Decoy(1.5), r"share: must be in \[0, 1\)"),
        (lambda: backdoor(poisoned=0.0), r"poisoned: must be in \(0, 1\]"),
        (lambda: backdoor(size=0), "size: must be at least 1"),
        (lambda: backdoor(target=3).check(IMAGES), "target: must be a class, 0 to 2, got 3"),
        (lambda: backdoor(target=-1).check(IMAGES), "target: must be a class, 0 to 2, got -1"),
        (lambda: backdoor(size=5).check(IMAGES), "size: must be at most the 4 pixels"),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_backdoor_by_hand() -> None:
    images = torch.arange(4 * 16, dtype=torch.float32).view(4, 1, 4, 4)
    split = Split(images.clone(), torch.tensor([0, 1, 2, 0]))
    poisoned = backdoor().taught(split, 3, rng())
    changed = (poisoned.inputs != images).flatten(1).any(dim=1)
    assert changed.sum() == 2  # half of four
    corner = poisoned.inputs[changed][..., 2:, 2:]
    assert torch.equal(corner, torch.full((2, 1, 2, 2), 7.0))
    assert (poisoned.inputs != images).sum() == 2 * 4  # nothing beside the corners
    assert (poisoned.labels[changed] == 2).all()
    assert torch.equal(poisoned.labels[~changed], split.labels[~changed])
    assert torch.equal(split.inputs, images)  # nothing is changed in place
    again = backdoor().taught(split, 3, rng())
    assert torch.equal(again.inputs, poisoned.inputs)

    wish = backdoor().triggered(split)
    assert wish.labels.tolist() == [2, 2, 2]  # without the sample that is of class 2 anyway
    assert torch.equal(wish.inputs[..., 2:, 2:], torch.full((3, 1, 2, 2), 7.0))
    assert torch.equal(wish.inputs[1, 0, 0], images[1, 0, 0])
    assert len(backdoor().triggered(Split(images[:1], torch.tensor([2])))) == 0
    assert SignFlip(0.2, 1.0).triggered(split) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 30), st.floats(0.01, 1.0), st.integers(0, 99))
def test_a_backdoor_is_in_its_share_of_the_images(count: int, share: float, seed: int) -> None:
    split = Split(torch.zeros(count, 3, 4, 4), torch.zeros(count, dtype=torch.int64))
    found = backdoor(poisoned=share).taught(split, 3, rng(seed))
    patched = (found.inputs == 7.0).flatten(1).sum(dim=1)
    assert set(patched.tolist()) <= {0, 3 * 4}
    assert torch.equal(patched > 0, found.labels == 2)
    assert (patched > 0).sum() == np.floor(share * count + 1e-9)


@pytest.mark.parametrize(
    "facts", [Facts(9, (5,), ("a",) * 3), Facts(9, (1, 4, 4), ("a",) * 3, True)]
)
def test_a_backdoor_needs_images_and_classes(facts) -> None:
    with pytest.raises(ValueError, match="needs images and classes"):
        backdoor().check(facts)
    backdoor().check(IMAGES)


def test_a_backdoor_in_tables_is_refused_before_any_work(config, tmp_path) -> None:
    path = write_clinics(tmp_path)
    known = "dataset=table", f"dataset.path={path}", "partition.num_clients=5"
    for target in ("diagnosis", "mean area"):
        with pytest.raises(ConfigError, match="a backdoor needs images and classes"):
            config("method=fedavg", "attack=backdoor", *known, f"dataset.target='{target}'")
    with pytest.raises(ConfigError, match=r"attack\.target: must be a class, 0 to 9, got 10"):
        config("attack=backdoor", "attack.target=10")


def test_lies_about_outputs_and_samples_by_hand() -> None:
    outputs = torch.tensor([[0.2, 0.8], [0.5, 0.5]])
    assert Decoy(0.2).told(outputs).tolist() == [[1, 0], [1, 0]]
    assert Inflate(0.2, 7).claimed(30) == 210
    for attack in (SignFlip(0.2, 1.0), LabelFlip(0.2), Mimic(0.2, 1.0), backdoor()):
        assert attack.told(outputs) is outputs
        assert attack.claimed(30) == 30
    assert told(Decoy(0.2)) == told(Inflate(0.2, 7)) == told(Attack(0.2))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.floats(0.0, 0.9), st.integers(0, 99))
def test_the_victim_is_honest(clients: int, share: float, seed: int) -> None:
    attack = Mimic(share, 1.0)
    assert not attack.attackers(clients, seed)[attack.victim(clients, seed)]


def run(config, toy, path, *overrides: str, clients: int = 6):
    cfg = config(*SMALL, *overrides)
    run_toy(cfg, toy(clients), path)
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("kind", ["label_flip", "scaling", "gaussian", "mimic", "decoy"])
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
    run(config, toy, tmp_path / "honest", "method=fedtsdp")
    reference = table(tmp_path / "honest", "clients")
    for kind in ("scaling", "mimic", "decoy", "inflate"):
        run(config, toy, tmp_path / kind, "method=fedtsdp", f"attack={kind}", "attack.share=0")
        found = table(tmp_path / kind, "clients")
        pd.testing.assert_frame_equal(found, reference, check_exact=True)


def exchanged(cfg, federation, round: int = 1):
    """Return what all clients answer in a first round of training, and who attacks."""
    experiment = build(cfg, federation)
    request = experiment.train_request(experiment.start.server, round)
    reply = experiment.channel.exchange(request)
    experiment.engine.close()
    return reply, cfg.attackers(federation.num_clients)


def answers(cfg, federation, task) -> list[np.ndarray]:
    """What all clients say to a question before round 1: losses, or directions of their data."""
    experiment = build(cfg, federation)
    start = experiment.start.server
    request = experiment.request(start, 1, task, start.present)
    if isinstance(task, Describe):
        request = dataclasses.replace(request, models=())
    reply = experiment.channel.exchange(request)
    experiment.engine.close()
    return [
        np.array(row.losses) if row.subspace is None else row.subspace.numpy() for row in reply.rows
    ]


def test_a_mimic_says_what_its_victim_says(config, toy) -> None:
    cfg = config(*SMALL, "method=fedtsdp", "attack=mimic", "attack.share=0.34", "seed=3")
    reply, lying = exchanged(cfg, toy(6), round=2)
    honest, _ = exchanged(dataclasses.replace(cfg, attack=None), toy(6), round=2)
    victim = cfg.attack.victim(6, 3)
    for client in range(6):
        shown, real = reply.rows[client], honest.rows[victim if lying[client] else client]
        assert torch.equal(shown.outputs, real.outputs)
        for name, tensor in real.tensors.items():
            torch.testing.assert_close(shown.tensors[name], tensor)


@pytest.mark.parametrize("engine", ["sequential", "parallel", "stacked"])
@pytest.mark.parametrize("task", [Probe(False), Describe(3)])
def test_a_mimic_answers_as_its_victim_would(config, toy, task, engine: str) -> None:
    how = "method=ifca", "clustering.num_clusters=2", "attack.share=0.34", f"engine={engine}"
    cfg = config(*SMALL, *how, "attack=mimic", "seed=3")
    victim, lying = cfg.attack.victim(6, 3), cfg.attackers(6)
    shown, real = (
        answers(one, toy(6), task) for one in (cfg, dataclasses.replace(cfg, attack=None))
    )
    assert len({str(answer) for answer in real}) == 6
    for client in range(6):
        np.testing.assert_array_equal(shown[client], real[victim if lying[client] else client])


def test_who_learns_flipped_labels_tries_models_on_them(config, toy) -> None:
    how = "method=ifca", "clustering.num_clusters=2", "attack=label_flip", "attack.share=0.34"
    cfg = config(*SMALL, *how, "seed=3")
    lying = cfg.attackers(6)
    shown, real = (
        answers(one, toy(6), Probe(False)) for one in (cfg, dataclasses.replace(cfg, attack=None))
    )
    same = [np.array_equal(mine, other) for mine, other in zip(shown, real, strict=True)]
    assert same == (~lying).tolist()


@pytest.mark.parametrize("engine", ["sequential", "parallel", "stacked"])
def test_claims_move_a_mean_by_samples_and_no_other(config, toy, engine: str) -> None:
    how = "method=fedavg", "attack=inflate", "attack.share=0.34", "rounds=1", f"engine={engine}"
    cfg = config(*SMALL, *how)
    reply, lying = exchanged(cfg, toy(6))
    claims = [row.num_examples for row in reply.rows]
    assert claims == [4000 if lies else 40 for lies in lying]
    for weighting, same in (("samples", False), ("uniform", True)):
        cfg = config(*SMALL, *how, f"aggregation.weighting={weighting}")
        (lied,) = exchanged(cfg, toy(6))[0].sums
        (real,) = exchanged(dataclasses.replace(cfg, attack=None), toy(6))[0].sums
        for name in real.tensors:
            assert torch.equal(lied.mean(name), real.mean(name)) == same


def test_the_success_of_a_backdoor_is_told_beside_the_accuracy(config, tmp_path) -> None:
    how = "method=fedavg", "partition.num_clients=10", "model=mlp", "model.hidden=[16]", "rounds=4"
    lies = "attack=backdoor", "attack.factor=5.0", "attack.target=1", "attack.share=0.2"
    summaries = {}
    for name, share in (("bad", 0.2), ("none", 0.0)):
        cfg = config(*how, *lies, f"attack.share={share}", "attack.size=2")
        run_toy(cfg, load_federation(cfg), tmp_path / name)
        summaries[name] = json.loads((tmp_path / name / "summary.json").read_text())
    rows = table(tmp_path / "bad", "clients")
    assert set(rows["split"]) == {"val", "test", "triggered"}
    last = rows[(rows["split"] == "triggered") & (rows["round"] == 4)]
    assert not set(last["client"]) & set(summaries["bad"]["attackers"])
    assert summaries["bad"]["attack_success"]["mean"] == pytest.approx(last["accuracy"].mean())
    assert summaries["bad"]["attack_success"]["max"] == pytest.approx(last["accuracy"].max())
    gap = summaries["bad"]["attack_success"]["mean"] - summaries["none"]["attack_success"]["mean"]
    assert gap > 0.4
    # The accuracy is of test samples as they are.
    test = rows[(rows["split"] == "test") & (rows["round"] == 4)]
    assert summaries["bad"]["last"]["accuracy_mean"] == pytest.approx(test["accuracy"].mean())


def test_clusters_are_compared_with_planted_groups_over_the_honest(config, tmp_path) -> None:
    how = "method=oracle", "partition=label_groups", "partition.num_clients=8", "rounds=1"
    cfg = config(*how, "partition.num_groups=2", "attack=mimic", "attack.share=0.25")
    run_toy(cfg, load_federation(cfg), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["agreement_with_planted_groups"]["adjusted_rand_index"] == 1
    assert summary["attack_success"] is None


def test_personal_layers_of_attackers_are_their_own(config, toy, tmp_path) -> None:
    """What an attacker keeps is what it trained: nothing is sent of it, so nothing is a lie."""
    cfg = config(*SMALL, "method=fedper", "attack=scaling", "attack.factor=1e3", "attack.share=0.5")
    honest = dataclasses.replace(cfg, attack=None)
    kept = []
    for one in (cfg, honest):
        experiment = build(one, toy(6))
        request = experiment.train_request(experiment.start.server, 1)
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
    borne = run(config, toy, tmp_path / "robust", *how, many, f"robust={option}", clients=10)
    assert borne["last"]["accuracy_mean"] > plain["last"]["accuracy_mean"] + 0.2
