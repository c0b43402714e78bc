"""How far apart clients with the same law are, as their clients measure it."""

import dataclasses
import logging

import numpy as np
import pandas as pd
import pytest
import torch

from fedtsd.clients import local
from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.similarity import js_divergence
from fedtsd.execution import build
from fedtsd.messages import ClientReply, Halve, Reply
from fedtsd.models import tensors_of
from fedtsd.noise_floor import NOISE, noise_floor_of, told
from fedtsd.personalization import Adaptive
from fedtsd.precision import Precision
from fedtsd.prior import CHOSEN, Skewed
from fedtsd.run_folder import TABLES
from fedtsd.seeding import torch_rng
from fedtsd.server import ServerState, start_state
from fedtsd.similarity import OUTPUTS
from fedtsd.traffic import SENT_NOISE, SENT_PUBLIC
from tests.runs import TIME_COLUMNS, run_toy, run_twice, table
from tests.skewed import skewed_federation

ADAPTIVE = Adaptive(start_round=4, coverage=0.9, noise_floor=None, power=1.0, at_most=None)
SKEWED = Skewed(start_round=4, coverage=0.9, noise_floor=None, above=0.1)
TOY = (
    "method=fedtsdp_prior", "model.hidden=[8]", "similarity.public_batch=20", "rounds=5",
    "partition.num_clients=6", "training.lr=0.1", "engine=sequential", "eval_every=1",
    "personalization.power=0.3",
)  # fmt: skip
MEASURED = ("personalization.noise_floor=null", "prior.noise_floor=null")


def state(divergence: float, clients: int = 4, **memory: np.ndarray) -> ServerState:
    """Clients of one cluster that are all as far from each other."""
    server = start_state({"w": torch.zeros(1)}, np.zeros((clients, 5), dtype=bool))
    alike = np.full((clients, clients), divergence) * (1 - np.eye(clients))
    return dataclasses.replace(server, memory={**Pairs.of(alike).stored(OUTPUTS), **memory})


def answer(*noises: float | None) -> Reply:
    return Reply(4, tuple(ClientReply(i, {}, 1, noise=noise) for i, noise in enumerate(noises)))


def test_the_floor_is_the_mean_of_what_clients_told() -> None:
    server = told(state(0.5), answer(0.1, 0.2, 0.6))
    assert noise_floor_of(server, None) == pytest.approx(0.3)
    assert noise_floor_of(server, 0.15) == 0.15  # a number that was given stands
    assert noise_floor_of(state(0.5), None) is None
    nobody = state(0.5)
    assert told(nobody, answer()) is nobody


def test_a_floor_of_one_leaves_nothing_above_it() -> None:
    server = told(state(1.0), answer(1.0, 1.0))
    assert noise_floor_of(server, None) < 1
    assert ADAPTIVE.adapt(server, 4).personal.any()  # what differs in all is above any noise
    assert not ADAPTIVE.adapt(told(state(0.99), answer(1.0)), 4).personal.any()


def test_choices_wait_until_the_floor_is_known() -> None:
    for policy in (ADAPTIVE, SKEWED):
        assert policy.measures_noise
        server = state(0.5)
        assert policy.adapt(server, 4) is server
        assert policy.lacks_noise_floor(server, 4)
        assert not policy.lacks_noise_floor(server, 3)  # nothing is chosen yet
        known = told(server, answer(0.15))
        assert not policy.lacks_noise_floor(known, 4)
        given = dataclasses.replace(policy, noise_floor=0.15)
        assert not given.measures_noise
        assert not given.lacks_noise_floor(server, 4)
        as_given = given.adapt(server, 4)
        found = policy.adapt(known, 4)
        assert found.personal.tolist() == as_given.personal.tolist()
        assert found.prior.tolist() == as_given.prior.tolist()


def test_it_is_not_measured_again_for_clusters_that_change() -> None:
    server = ADAPTIVE.adapt(told(state(0.5), answer(0.15)), 4)
    moved = dataclasses.replace(server, assignment_round=np.full(4, 6))
    assert not ADAPTIVE.lacks_noise_floor(moved, 6)
    assert (ADAPTIVE.adapt(moved, 6).personal_round == 6).all()
    chosen = SKEWED.adapt(told(state(0.5), answer(0.15)), 4)
    assert chosen.memory[CHOSEN].tolist() == [4] * 4
    assert not SKEWED.lacks_noise_floor(chosen, 5)


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_a_floor_that_cannot_be_is_refused(floor: float) -> None:
    for policy in (ADAPTIVE, SKEWED):
        with pytest.raises(ValueError, match=r"noise_floor: must be in \[0, 1\), or null"):
            dataclasses.replace(policy, noise_floor=floor)


def test_a_client_tells_what_a_naive_reference_finds(config) -> None:
    cfg = config(*TOY, *MEASURED)
    federation = skewed_federation(6)
    experiment = build(cfg, federation)
    server = experiment.start.server
    public = torch.arange(20)
    task = Halve(cfg.training.phases, public)
    request = experiment.request(server, 4, task, np.array([1, 4]))
    reply = experiment.channel.exchange(request)
    for row in reply.rows:
        split = federation.clients[row.client].train
        order = torch.randperm(len(split), generator=torch_rng(cfg.seed, "halves", 4, row.client))
        outputs = []
        for purpose, half in (("first half", order[::2]), ("second half", order[1::2])):
            model = cfg.model.build((2,), 3)
            with torch.no_grad():
                for name, tensor in tensors_of(model).items():
                    tensor.copy_(server.centres[0][name])
            rng = torch_rng(cfg.seed, purpose, 4, row.client)
            part = dataclasses.replace(split, inputs=split.inputs[half], labels=split.labels[half])
            told_of = part, cfg.training.phases, frozenset(), cfg.training, rng, Precision("fp32")
            local.train(model, *told_of)
            outputs.append(torch.softmax(local.predict(model, federation.public[public]), dim=1))
        expected = js_divergence(torch.stack(outputs).numpy())[0][0, 1]
        assert row.noise == pytest.approx(expected, rel=1e-6)
        assert row.noise > 0
        assert row.num_samples == cfg.training.phases[0].epochs * len(split)
        assert not row.tensors


def test_measuring_changes_nothing_but_the_floor(config, tmp_path, caplog) -> None:
    """A run that is told the floor that another one measured is that run, but for the traffic."""
    federation = skewed_federation(6)
    caplog.set_level(logging.INFO, logger="fedtsd")
    run_toy(config(*TOY, *MEASURED), federation, tmp_path / "measured")
    (line,) = [message for message in caplog.messages if "noise floor" in message]
    assert "round 4: the noise floor is 0." in line
    experiment = build(config(*TOY, *MEASURED), federation)
    server = experiment.start.server
    for r in range(1, 5):  # the same rounds, without a folder
        server, _ = experiment.gauge(server, server.present, r)
        assert (NOISE in server.memory) == (r == 4)
        request = experiment.train_request(server, r)
        reply = experiment.channel.exchange(request)
        server = experiment.measure(server, request, reply)
        server = experiment.aggregate(server, reply)
    floor = float(server.memory[NOISE][0])
    assert f"{floor:.3f}" in line
    given = (f"personalization.noise_floor={floor!r}", f"prior.noise_floor={floor!r}")
    run_toy(config(*TOY, *given), federation, tmp_path / "given")
    for name in sorted(set(TABLES) - {"traffic", "exchanged", "rounds"}):
        one, other = (table(tmp_path / kind, name) for kind in ("measured", "given"))
        pd.testing.assert_frame_equal(
            one.drop(columns=TIME_COLUMNS, errors="ignore"),
            other.drop(columns=TIME_COLUMNS, errors="ignore"),
        )
    assignments = table(tmp_path / "measured", "assignments")
    assert assignments["personal_layers"].nunique() > 1  # something was chosen


def test_it_is_asked_once_and_costs_a_number_and_no_second_model(config, tmp_path) -> None:
    run_toy(config(*TOY, *MEASURED), skewed_federation(6), tmp_path)
    crossed = table(tmp_path, "exchanged")
    (noise,) = crossed[crossed["item"] == SENT_NOISE].to_dict("records")
    assert (noise["round"], noise["direction"]) == (4, "up")
    assert (noise["num_clients"], noise["num_bytes"]) == (6, 24)
    weights = crossed[(crossed["item"] == "fc1.weight") & (crossed["direction"] == "down")]
    assert weights["round"].tolist() == [1, 2, 3, 4, 5]  # sent once in round 4, too
    numbers = crossed[(crossed["item"] == SENT_PUBLIC) & (crossed["round"] == 4)]
    assert len(numbers) == 2
    samples = table(tmp_path, "traffic").groupby("round")["samples"].sum()
    assert samples[4] == 2 * samples[3]  # two halves, and the whole


def test_with_small_cohorts_it_is_measured_when_mates_have_met(config, tmp_path) -> None:
    cfg = config(*TOY, *MEASURED, "cohort.size=3", "rounds=14")
    run_toy(cfg, skewed_federation(6), tmp_path)
    crossed = table(tmp_path, "exchanged")
    (noise,) = crossed[crossed["item"] == SENT_NOISE].to_dict("records")
    assert noise["num_clients"] == 3
    layers = table(tmp_path, "assignments").query("personal_layers > 0")
    assert layers["round"].min() == noise["round"] > 4


def test_a_resumed_run_remembers_it(config, tmp_path) -> None:
    cfg = config(*TOY, *MEASURED, "checkpoint_every=1")
    whole, parts = run_twice(cfg, skewed_federation(6), tmp_path, 4)
    for name in ("clients", "assignments", "exchanged"):
        pd.testing.assert_frame_equal(table(whole, name), table(parts, name))


@pytest.mark.parametrize("engine", ["parallel", "stacked"])
def test_engines_measure_the_same(config, tmp_path, caplog, engine: str) -> None:
    caplog.set_level(logging.INFO, logger="fedtsd")
    for name in ("sequential", engine):
        more = [f"engine={name}", *(["engine.workers=2"] if name == "parallel" else [])]
        run_toy(config(*TOY, *MEASURED, *more), skewed_federation(6), tmp_path / name)
    told_of = [message.rpartition("the noise floor is ")[1:] for message in caplog.messages]
    floors = [float(number) for said, number in told_of if said]
    assert len(floors) == 2
    assert floors[0] == pytest.approx(floors[1], abs=2e-3)


def test_a_client_with_one_sample_learns_the_same_twice(config) -> None:
    federation = skewed_federation(6)
    only = federation.clients[0].train.only(torch.tensor([0]))
    first = dataclasses.replace(federation.clients[0], train=only)
    federation = dataclasses.replace(federation, clients=(first, *federation.clients[1:]))
    cfg = config(*TOY, *MEASURED)
    experiment = build(cfg, federation)
    task = Halve(cfg.training.phases, torch.arange(20))
    request = experiment.request(experiment.start.server, 4, task, np.array([0]))
    (row,) = experiment.channel.exchange(request).rows
    assert row.noise == pytest.approx(0, abs=1e-9)
