import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.checkpoint import read_checkpoint, write_checkpoint
from fedtsd.clustering.pairs import Pairs
from fedtsd.execution import build
from fedtsd.messages import ClientReply, ClientRequest, Probe, Reply, Request, Train
from fedtsd.prior import Everybody, NoPrior, Skewed
from fedtsd.run_folder import TABLES, RunFolder
from fedtsd.server import ABSENT, ServerState, joined, start_state
from fedtsd.similarity import OUTPUTS, OUTPUTS_BEFORE, Similarity, pairs_of
from tests.runs import TIME_COLUMNS, StopAfter, StoppedError, run_toy, table
from tests.skewed import skewed_federation

SKEWED = Skewed(start_round=4, coverage=0.9, noise_floor=0.15, above=0.1)
EARLY = (
    "method=fedtsdp_prior", "model.hidden=[8]", "similarity.public_batch=20",
    "partition.num_clients=6", "training.lr=0.02", "prior.start_round=2", "prior.noise_floor=0.0",
    "prior.above=0.001", "personalization.start_round=3",
)  # fmt: skip
"""Of everybody with a prior after round 2."""


def state(matrix: np.ndarray, assignment: list[int]) -> ServerState:
    server = start_state({"w": torch.zeros(1)}, np.zeros((len(assignment), 2), dtype=bool))
    memory = Pairs.of(matrix).stored(OUTPUTS)
    return dataclasses.replace(server, assignment=np.array(assignment), memory=memory)


def knowing(server: ServerState, matrix: np.ndarray) -> ServerState:
    memory = {**server.memory, **Pairs.of(matrix).stored(OUTPUTS)}
    return dataclasses.replace(server, memory=memory)


def alike(value: float, n: int = 4) -> np.ndarray:
    return np.full((n, n), value) * (1 - np.eye(n))


def test_fixed_choices() -> None:
    server = state(alike(0.9), [0] * 4)
    for policy, has_one in ((NoPrior(), False), (Everybody(), True)):
        assert policy.start(3).tolist() == [has_one] * 3
        assert policy.adapt(server, 4) is server
        assert not policy.uses_outputs
    assert SKEWED.start(3).tolist() == [False] * 3
    assert SKEWED.uses_outputs


def test_those_far_from_their_mates_have_one() -> None:
    # Mean divergences to mates: .20, .25, .30, .25; J' = (M - .15) / .85 = .059, .118, .176, .118
    far = np.array([[0, 0.1, 0.2, 0.3], [0.1, 0, 0.4, 0.25], [0.2, 0.4, 0, 0.3],
                    [0.3, 0.25, 0.3, 0]])  # fmt: skip
    assert SKEWED.adapt(state(far, [0] * 4), 4).prior.tolist() == [False, True, True, True]
    # Two clusters: each client has one mate, at .1 and at .3; J' = 0 and .176
    assert SKEWED.adapt(state(far, [0, 0, 1, 1]), 4).prior.tolist() == [False, False, True, True]


def test_far_means_more_than_the_threshold() -> None:
    policy = Skewed(start_round=2, coverage=0.9, noise_floor=0.0, above=0.5)
    assert not policy.adapt(state(alike(0.5), [0] * 4), 2).prior.any()
    assert policy.adapt(state(alike(0.51), [0] * 4), 2).prior.all()


def test_a_lone_client_has_none() -> None:
    server = state(alike(0.9), [0, 1, 2, 3])
    assert not SKEWED.adapt(server, 4).prior.any()


@settings(deadline=None)
@given(
    divergence=st.floats(0, 1), floor=st.floats(0, 0.99), above=st.floats(0, 0.99),
)  # fmt: skip
def test_the_threshold_is_that_of_the_formula(divergence, floor, above) -> None:
    policy = Skewed(2, 0.9, floor, above)
    excess = max(0.0, divergence - floor) / (1 - floor)
    if abs(excess - above) < 1e-9:
        return
    chosen = policy.adapt(state(alike(divergence, 2), [0, 0]), 2).prior
    assert chosen.tolist() == [excess > above] * 2


def test_chosen_once_at_the_start_round() -> None:
    server = state(alike(0.5), [0] * 4)
    assert SKEWED.adapt(server, 3) is server
    chosen = SKEWED.adapt(server, 4)
    assert chosen.prior.all()
    later = knowing(chosen, alike(0.0))
    assert SKEWED.adapt(later, 5) is later
    # A change of clusters before the start round is no reason to choose before it.
    early = dataclasses.replace(server, assignment_round=np.array([3, 3, 0, 0]))
    assert SKEWED.adapt(early, 3) is early


def test_chosen_again_only_where_the_cluster_changed() -> None:
    chosen = SKEWED.adapt(state(alike(0.5), [0] * 4), 4)
    matrix = np.zeros((4, 4))
    matrix[2:, 2:] = 0.9 * (1 - np.eye(2))
    moved = dataclasses.replace(
        chosen,
        prior=np.array([True, True, False, True]),
        assignment=np.array([1, 1, 0, 0]),
        assignment_round=np.array([6, 6, 0, 0]),
    )
    moved = knowing(moved, matrix)
    # 0 and 1 are now together and alike. 2 and 3 are far apart, but their cluster is what it was.
    again = SKEWED.adapt(moved, 6)
    assert again.prior.tolist() == [False, False, False, True]
    assert SKEWED.adapt(again, 7) is again


def test_absent_newcomers_have_none_until_they_join() -> None:
    matrix = alike(0.5)
    matrix[3, :] = matrix[:, 3] = np.nan  # it has told nothing yet
    chosen = SKEWED.adapt(state(matrix, [0, 0, 0, ABSENT]), 4)
    assert chosen.prior.tolist() == [True, True, True, False]
    there = joined(chosen, {3: 0}, 7)
    told = dataclasses.replace(there, memory=Pairs.of(alike(0.5)).stored(OUTPUTS))
    assert SKEWED.adapt(told, 7).prior.all()


def test_newcomers_try_models_with_the_prior_that_they_would_have(config, toy, monkeypatch) -> None:
    asked = []

    def exchange(request: Request) -> Reply:
        asked.append(request)
        return Reply(request.round, (ClientReply(2, {}, 1, losses=(1.0, 0.5)),))

    for prior in ("everybody", "none"):
        cfg = config("method=fedavg", f"prior={prior}", "model.hidden=[4]", "engine=sequential")
        experiment = build(cfg, dataclasses.replace(toy(3), newcomers=(2,)))
        monkeypatch.setattr(experiment.channel, "exchange", exchange)
        server = experiment.start.server
        two = dataclasses.replace(server, centres=server.centres * 2)
        assert experiment.nearest_clusters(two, np.array([2]), 3, look=True) == {2: 1}
    assert all(isinstance(request.task, Probe) for request in asked)
    assert [row.prior for request in asked for row in request.rows] == [True, False]


def test_a_checkpoint_keeps_who_has_one(tmp_path) -> None:
    server = dataclasses.replace(state(alike(0.5), [0] * 4), prior=np.array([1, 0, 0, 1], bool))
    write_checkpoint(tmp_path / "state", server.state_dict())
    again = ServerState.from_state_dict(read_checkpoint(tmp_path / "state"))
    assert again.prior.tolist() == [True, False, False, True]
    assert again.prior.dtype == bool


def test_a_stopped_run_continues_to_the_same_end(config, tmp_path) -> None:
    cfg = config(*EARLY, "engine=parallel", "engine.workers=1", "rounds=4", "checkpoint_every=1")
    federation = skewed_federation(6)
    run_toy(cfg, federation, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run_toy(cfg, federation, tmp_path / "parts", StopAfter(2))
    run_toy(cfg, federation, tmp_path / "parts")
    assert RunFolder(tmp_path / "whole").load_checkpoint()["server"]["prior"].all()
    for name in TABLES:
        whole, parts = (table(tmp_path / run, name).drop(columns=TIME_COLUMNS, errors="ignore")
                        for run in ("whole", "parts"))  # fmt: skip
        pd.testing.assert_frame_equal(whole, parts, check_exact=True)


def test_chosen_in_the_round_that_is_set(config, tmp_path) -> None:
    for rounds, some in ((1, False), (2, True)):
        cfg = config(*EARLY, "engine=sequential", f"rounds={rounds}")
        run_toy(cfg, skewed_federation(6), tmp_path / str(rounds))
        saved = RunFolder(tmp_path / str(rounds)).load_checkpoint()["server"]
        assert saved["prior"].any() == some


A, B = [1.0, 0.0], [0.0, 1.0]  # JS between them is 1
POLICY = Similarity(
    2, "uniform", output_memory=0.5, update_memory=0.7, first_round=2, exact_up_to=9, landmarks=4
)


def measured(server: ServerState, outputs, round: int) -> ServerState:
    """Let clients tell outputs on two public samples, each with its prior as the server has it."""
    sent = tuple(
        ClientRequest(c, 0, frozenset(), prior=bool(server.prior[c])) for c in range(len(outputs))
    )
    told = tuple(ClientReply(c, {}, 1, outputs=torch.tensor(q)) for c, q in enumerate(outputs))
    public = torch.tensor([0, 1], dtype=torch.int32)
    request = Request(round, Train((), public, None), server.centres, sent)
    return POLICY.measure_outputs(server, request, Reply(round, told), public, 3)


def test_pairs_keep_their_value_once_one_of_them_has_a_prior() -> None:
    server = measured(start_state({}, np.zeros((3, 1), dtype=bool)), [[A, A]] * 3, 2)
    before = server.memory[f"{OUTPUTS_BEFORE}.pairs"]
    server = dataclasses.replace(server, prior=np.array([False, False, True]))
    server = measured(server, [[A, A], [A, B], [B, B]], 3)
    found = pairs_of(server, OUTPUTS).block(np.arange(3))
    assert found[0, 1] == 0.25  # .5 * 0 + .5 * .5: they differ in one of two samples
    assert found[0, 2] == found[1, 2] == 0.0
    # What is reported as before private parts stays what it was then.
    kept = pairs_of(server, OUTPUTS_BEFORE)
    np.testing.assert_array_equal(server.memory[f"{OUTPUTS_BEFORE}.pairs"], before)
    assert kept.values.tolist() == [0.0] * 3


def test_pairs_never_measured_before_are_taken_in_spite_of_a_prior() -> None:
    server = start_state({}, np.zeros((2, 1), dtype=bool))
    server = dataclasses.replace(server, prior=np.array([True, True]))
    found = measured(server, [[A, A], [B, B]], 3)
    assert pairs_of(found, OUTPUTS).block(np.arange(2))[0, 1] == 1.0
    assert pairs_of(measured(found, [[A, A], [A, A]], 4), OUTPUTS).values.tolist() == [1.0]


def test_who_has_a_prior_is_not_asked_again() -> None:
    server = measured(start_state({}, np.zeros((4, 1), dtype=bool)), [[A, A]] * 4, 2)
    server = dataclasses.replace(server, prior=np.array([True, False, False, True]))
    assert POLICY.tellers(server, 3).tolist() == [False, True, True, False]
    alone = dataclasses.replace(server, prior=np.array([True, False, True, True]))
    assert not POLICY.tellers(alone, 3).any()


def test_stages_are_written_in_order_and_the_last_one_is_served(config, tmp_path) -> None:
    stages = ["personalized", "tuned", "headed", "ensembled"]
    for served in (stages, stages[:3]):
        folder = tmp_path / served[-1]
        cfg = config(
            "method=fedavg_prior", f"evaluation.stages=[{','.join(served)}]", "model.hidden=[4]",
            "rounds=2", "partition.num_clients=4", "engine=sequential", "training.lr=0.02",
        )  # fmt: skip
        run_toy(cfg, skewed_federation(4), folder)
        rows = table(folder, "clients")
        test = rows[(rows["round"] == 2) & (rows["split"] == "test")]
        assert test.groupby("client")["stage"].apply(list).tolist() == [served] * 4
        summary = json.loads((folder / "summary.json").read_text())
        last = test[test["stage"] == served[-1]]["accuracy"].mean()
        assert summary["stage"] == served[-1]
        assert summary["last"]["accuracy_mean"] == pytest.approx(last)
        losses = test.pivot_table(index="client", columns="stage", values="loss")
        assert (losses.nunique(axis=1) == len(served)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_round": 1}, "start_round: must be at least 2, got 1"),
        ({"noise_floor": 1.0}, r"noise_floor: must be in \[0, 1\), or null to measure it, got 1.0"),
        ({"above": -0.1}, r"above: must be in \[0, 1\), got -0.1"),
    ],
)
def test_settings_are_checked(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SKEWED, **change)
