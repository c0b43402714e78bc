"""Client-level privacy: clipping and noise by hand, how far a client moves the sum, whole runs."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.aggregation_private import ClientDp
from fedtsd.messages import ClientReply, Reply
from fedtsd.privacy import EVERYBODY, Turn
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import torch_rng
from fedtsd.server import start_state
from tests.clients.solvers.benches import settings as training
from tests.runs import run_toy, run_twice, table, tables_of
from tests.test_aggregation import LAYERS

RUN = (
    "method=fedavg", "aggregation=client_dp", "rounds=4", "partition.num_clients=6",
    "model.hidden=[8]", "cohort.size=4", "checkpoint_every=1",
)  # fmt: skip
number = st.floats(-100, 100, width=32)


def policy(clip=1.0, noise=1.0, cohort=None, seed=0) -> ClientDp:
    return ClientDp(clip, noise, 1e-5, None, cohort, seed)


def state(count: int, body: list[float], head: float = 0.0):
    model = {"body": torch.tensor(body), "head": torch.tensor([head])}
    return start_state(model, np.zeros((count, 2), dtype=bool))


def reply(*models: list[float], round: int = 1, examples: int = 10) -> Reply:
    """Each client sends a body; the head stays with them."""
    rows = (ClientReply(c, {"body": torch.tensor(m)}, examples) for c, m in enumerate(models))
    return Reply(round, tuple(rows))


def test_updates_are_clipped_by_their_length_and_added() -> None:
    server = state(3, [1.0, 1.0])
    # Updates (3, 4) of length 5 and (0, 1); the third client stays where it was.
    answer = reply([4.0, 5.0], [1.0, 2.0], [1.0, 1.0])
    total = policy(clip=2.5).clipped_sum(server.centres[0], answer)
    assert total.keys() == {"body"}
    assert total["body"].tolist() == pytest.approx([1.5, 2 + 1])


def test_a_length_is_over_all_tensors_that_are_shared() -> None:
    tensors = {"body": torch.tensor([3.0]), "head": torch.tensor([4.0])}
    server = state(1, [0.0])
    total = policy(clip=1.0).clipped_sum(server.centres[0], Reply(1, (ClientReply(0, tensors, 1),)))
    assert [total["body"].item(), total["head"].item()] == pytest.approx([0.6, 0.8])


def test_the_centre_moves_by_the_noisy_sum_over_the_cohort() -> None:
    server = state(4, [1.0, 1.0], head=7.0)
    answer = reply([4.0, 5.0], [1.0, 2.0], round=3)
    found = policy(2.5, 0.5, seed=9).update(server, answer, LAYERS).centres[0]
    normal = torch.randn(2, generator=torch_rng(9, "client noise", 3), dtype=torch.float64)
    # Four clients are there: the sum is divided by four, though two answered.
    expected = 1.0 + (torch.tensor([1.5, 3.0]) + 2.5 * 0.5 * normal) / 4
    assert found["body"].tolist() == pytest.approx(expected.tolist())
    assert found["head"].item() == 7.0  # nobody shares it: it has no noise
    small = policy(2.5, 0.5, cohort=2, seed=9).update(server, answer, LAYERS).centres[0]
    assert (small["body"] - 1).tolist() == pytest.approx((2 * (found["body"] - 1)).tolist())


def test_the_noise_is_as_wide_as_promised_and_new_in_each_round() -> None:
    server = state(10, [0.0] * 20_000)
    draws = [
        policy(3.0, 2.0, seed=1).update(server, reply([0.0] * 20_000, round=r), LAYERS)
        for r in (1, 2)
    ]
    first, second = (draw.centres[0]["body"] for draw in draws)
    assert first.std().item() == pytest.approx(3.0 * 2.0 / 10, rel=0.02)
    assert abs(first.mean().item()) < 0.02
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.03


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(number, min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(number, min_size=3, max_size=3),
    st.floats(0.01, 50),
    st.data(),
)
def test_one_client_moves_the_sum_by_two_clips_at_most(models, other, clip, data) -> None:
    who = data.draw(st.integers(0, len(models) - 1))
    neighbours = [*models[:who], other, *models[who + 1 :]]
    centre = state(len(models), [0.5, -1.0, 2.0]).centres[0]
    sums = [policy(clip).clipped_sum(centre, reply(*all_))["body"] for all_ in (models, neighbours)]
    assert (sums[0] - sums[1]).norm().item() <= 2 * clip * (1 + 1e-9)
    without = policy(clip).clipped_sum(centre, Reply(1, reply(*models).rows[1:]))
    there = policy(clip).clipped_sum(centre, reply(*models))["body"]
    rest = without.get("body", torch.zeros(3, dtype=torch.float64))
    assert (there - rest).norm().item() <= clip * (1 + 1e-9)


def test_how_much_clients_claim_to_hold_does_not_matter() -> None:
    server = state(2, [0.0, 0.0])
    models = [1.0, 0.0], [0.0, 1.0]
    found = [policy().update(server, reply(*models, examples=n), LAYERS) for n in (1, 10**9)]
    assert torch.equal(found[0].centres[0]["body"], found[1].centres[0]["body"])
    assert policy().sums is None


def test_a_round_costs_everybody_a_draw_without_replacement_of_half_the_noise() -> None:
    releases = policy(noise=3.0, cohort=4).releases(Turn(10, {1: 5, 2: 5}), training())
    ((event, count),) = releases[EVERYBODY]
    assert (event.source_dataset_size, event.sample_size, count) == (10, 4, 1)
    assert event.event.noise_multiplier == 1.5  # the sum moves by two clips
    ((everybody, _),) = policy().releases(Turn(10, {}), training())[EVERYBODY]
    assert everybody.sample_size == 10


def test_a_resumed_run_is_the_run_in_one_piece(config, toy, tmp_path) -> None:
    cfg = config(*RUN, "engine=sequential")
    whole, parts = run_twice(cfg, toy(6, flipped=(1, 2)), tmp_path, stop=2)
    for name, found in tables_of(parts).items():
        pd.testing.assert_frame_equal(found, tables_of(whole)[name], check_exact=True)
    ends = [RunFolder(path).load_checkpoint()["server"]["centres"][0] for path in (whole, parts)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert table(parts, "rounds")["epsilon"].is_monotonic_increasing


def test_engines_agree(config, toy, tmp_path) -> None:
    for engine in ("sequential", "parallel"):
        run_toy(config(*RUN, f"engine={engine}"), toy(6), tmp_path / engine)
    reference = tables_of(tmp_path / "sequential")
    for name, found in tables_of(tmp_path / "parallel").items():
        pd.testing.assert_frame_equal(found, reference[name], rtol=1e-4, atol=1e-4)


def test_without_noise_and_clipping_to_speak_of_it_is_the_uniform_mean(
    config, toy, tmp_path
) -> None:
    quiet = "aggregation.clip=1e3", "aggregation.noise_multiplier=1e-12", "engine=sequential"
    run_toy(config(*RUN, *quiet), toy(6), tmp_path / "private")
    mean = "method=fedavg", "aggregation=mean", "aggregation.weighting=uniform"
    run_toy(config(*RUN, "engine=sequential", *mean), toy(6), tmp_path / "mean")
    first, second = (table(tmp_path / name, "clients") for name in ("private", "mean"))
    pd.testing.assert_frame_equal(first, second, rtol=1e-4, atol=1e-4)
    assert table(tmp_path / "mean", "rounds")["epsilon"].isna().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": 0.0}, "clip: must be above 0, got 0.0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier: must be above 0, got -1.0"),
        ({"delta": 1.0}, r"delta: must be in \(0, 1\), got 1.0"),
        ({"target_epsilon": 0.0}, "target_epsilon: must be null or above 0, got 0.0"),
    ],
)
def test_wrong_values_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(policy(), **changes)


def test_an_update_that_is_zero_stays_zero() -> None:
    total = policy().clipped_sum(state(1, [1.0]).centres[0], reply([1.0]))["body"].item()
    assert total == 0.0
    assert not math.isnan(total)
