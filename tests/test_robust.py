"""Robust aggregation: by hand, and against members that lie."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.aggregation import WeightedMean
from fedtsd.errors import ConfigError
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import Layer
from fedtsd.robust import (
    Median,
    MultiKrum,
    NormBound,
    TrimmedMean,
    squared_distances,
)
from fedtsd.server_optimizer import Momentum
from fedtsd.tree import Tree
from tests.runs import run_toy, run_twice, table, tables_of
from tests.test_aggregation import reply, server, update, values

LAYERS = (Layer("body", ("body",)), Layer("head", ("head",)))
POLICIES = (Median(), TrimmedMean(0.2), MultiKrum(0.2), NormBound("uniform", None))


def sent(*models: list[float], examples: int = 10) -> Reply:
    """Each client sends a body of several numbers."""
    rows = (ClientReply(c, {"body": torch.tensor(m)}, examples) for c, m in enumerate(models))
    return Reply(1, tuple(rows))


def centred(count: int, size: int):
    state = server([0] * count)
    return state.__class__(
        **{**vars(state), "centres": ({"body": torch.zeros(size), "head": torch.ones(1)},)}
    )


def agreed(rule, state, told: Reply):
    """The state whose centres are what the members agree on."""
    return update(WeightedMean("uniform"), state, rule.summed(state, told))


def body_of(policy, *models: list[float]) -> list[float]:
    new = agreed(policy, centred(len(models), len(models[0])), sent(*models))
    return new.centres[0]["body"].tolist()


def test_the_median_of_each_coordinate() -> None:
    assert body_of(Median(), [1, 9], [2, 7], [100, 8]) == [2, 8]
    assert body_of(Median(), [1.0], [2.0], [4.0], [100.0]) == [3]  # the two in the middle


def test_the_trimmed_mean_leaves_out_the_same_number_at_either_end() -> None:
    models = [[v] for v in (0.0, 1.0, 2.0, 3.0, 1000.0)]
    assert body_of(TrimmedMean(0.2), *models) == [2]
    assert body_of(TrimmedMean(0.19), *models) == pytest.approx([1006 / 5])  # nobody: 0.95 of one
    assert body_of(TrimmedMean(0.4), *models) == [2]
    ten = [[float(v)] for v in range(10)]
    assert body_of(TrimmedMean(0.3), *ten) == [4.5]  # 3, 4, 5, 6: 0.3 * 10 is three


def test_weights_are_claims_that_these_do_not_believe() -> None:
    rows = [(0, {"body": 1.0, "head": 0.0}, 10), (1, {"body": 3.0, "head": 0.0}, 10**9)]
    for policy in POLICIES[:3]:
        assert values(agreed(policy, server([0, 0]), reply(*rows)))[0]["body"] == 2.0


def test_a_layer_is_of_those_who_share_it_and_what_nobody_sent_stays() -> None:
    rows = [(0, {"body": 1.0}, 5), (1, {"body": 3.0}, 5), (2, {"body": 8.0}, 5)]
    for policy in POLICIES:
        (centre,) = values(agreed(policy, server([0, 0, 0]), reply(*rows)))
        assert centre["head"] == 200.0
    mixed = [(0, {"body": 1.0, "head": 7.0}, 5), (1, {"body": 3.0}, 5), (2, {"body": 8.0}, 5)]
    for policy in POLICIES[:3]:
        assert values(agreed(policy, server([0, 0, 0]), reply(*mixed)))[0]["head"] == 7.0


def test_clusters_do_not_mix_and_a_silent_one_keeps_its_centre() -> None:
    rows = [(1, {"body": 1.0, "head": 1.0}, 5), (3, {"body": 9.0, "head": 9.0}, 5)]
    for policy in (Median(), TrimmedMean(0.2), MultiKrum(0.2)):
        new = values(agreed(policy, server([0, 1, 2, 0]), reply(*rows)))
        assert [centre["body"] for centre in new] == [9.0, 1.0, 100.0]


def test_multi_krum_leaves_out_who_is_far_from_its_neighbours() -> None:
    models = [[0.0], [1.0], [2.0], [3.0], [50.0]]
    # f = 1: scores over the 2 nearest: 5, 2, 2, 5, 4418 or so; the last is left out.
    assert body_of(MultiKrum(0.2), *models) == [1.5]
    assert body_of(MultiKrum(0.0), *models) == pytest.approx([56 / 5])
    # Of four nobody can be left out, whatever the share.
    assert body_of(MultiKrum(0.4), *models[1:]) == pytest.approx([14.0])


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 14), st.floats(0.0, 0.49), st.integers(0, 1000))
def test_multi_krum_is_what_the_paper_says(count: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    rows = sent(*points.tolist()).rows
    bad = min(math.floor(count * share + 1e-9), (count - 3) // 2)
    scores = []
    for i in range(count):
        others = sorted(
            float(((points[i].astype(float) - points[j].astype(float)) ** 2).sum())
            for j in range(count)
            if j != i
        )
        scores.append(sum(others[: count - bad - 2]))
    expected = sorted(sorted(range(count), key=lambda i: scores[i])[: count - bad])
    assert MultiKrum(share).chosen(rows) == (expected if bad else list(range(count)))


def test_distances_are_over_what_all_share() -> None:
    rows = (
        ClientReply(0, {"a": torch.tensor([0.0, 3.0]), "b": torch.tensor([9.0])}, 1),
        ClientReply(1, {"a": torch.tensor([4.0, 0.0])}, 1),
    )
    assert squared_distances(rows).tolist() == [[0, 25], [25, 0]]


def test_updates_are_shortened_to_the_bound() -> None:
    # Lengths 5, 1, 10 from a centre of zeros; the median is 5.
    models = [3.0, 4.0], [0.0, 1.0], [10.0, 0.0]
    assert body_of(NormBound("uniform", None), *models) == pytest.approx([8 / 3, 5 / 3])
    assert body_of(NormBound("uniform", 1.0), *models) == pytest.approx([1.6 / 3, 1.8 / 3])
    assert body_of(NormBound("uniform", 100.0), *models) == pytest.approx([13 / 3, 5 / 3])
    assert body_of(NormBound("uniform", None), [0.0, 0.0], [0.0, 0.0]) == [0, 0]


def test_a_bound_that_nobody_reaches_is_the_weighted_mean() -> None:
    rows = [(0, {"body": 1.0, "head": 10.0}, 30), (1, {"body": 5.0}, 10)]
    bounded = agreed(NormBound("samples", 1e6), server([0, 0]), reply(*rows))
    plain = update(WeightedMean("samples"), server([0, 0]), reply(*rows))
    assert values(bounded)[0] == pytest.approx(values(plain)[0])


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
@settings(max_examples=30, deadline=None)
@given(lie=st.floats(-1e6, 1e6), seed=st.integers(0, 100))
def test_one_liar_among_ten_cannot_lead_the_others(policy, lie: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    honest = rng.uniform(1, 2, size=(9, 4)).tolist()
    body = body_of(policy, *honest, [lie] * 4)
    # The bound shortens a lie to an honest length, which still may point the wrong way.
    low, high = (0.5, 2.1) if isinstance(policy, NormBound) else (1, 2)
    assert all(low <= value <= high + 1e-6 for value in body)


@pytest.mark.parametrize("policy", POLICIES[:3], ids=lambda p: type(p).__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), lies=st.integers(1, 4))
def test_f_liars_leave_each_coordinate_within_the_honest_range(policy, data, lies: int) -> None:
    """Of 20 members 4 may lie as they like, each in a way of its own."""
    number = st.floats(-1e6, 1e6, width=32)
    told = data.draw(
        st.lists(st.lists(number, min_size=3, max_size=3), min_size=lies, max_size=lies)
    )
    honest = np.random.default_rng(lies).normal(size=(20 - lies, 3)).astype(np.float32)
    body = np.array(body_of(policy, *honest.tolist(), *told))
    if isinstance(
        policy, MultiKrum
    ):  # it picks whole models: a lie near the honest may be among them
        far = [lie for lie in told if np.abs(lie).max() > 1e3]
        if len(far) < lies:
            return
    assert (honest.min(axis=0) - 1e-5 <= body).all()
    assert (body <= honest.max(axis=0) + 1e-5).all()


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_what_members_agree_on_stands_in_the_place_of_their_sum(policy) -> None:
    models = np.random.default_rng(5).normal(size=(7, 4)).astype(np.float32).tolist()
    state, said = centred(7, 4), sent(*models)
    alone = agreed(policy, state, said).centres[0]["body"]
    summed = policy.summed(state, said)
    for other in (WeightedMean("samples"), Tree("samples", 0), Momentum("samples", 1.0, 0.0)):
        assert torch.equal(other.update(state, summed, LAYERS).centres[0]["body"], alone)
    # Half a step from zeros, with no past: half of what they agree on.
    stepped = Momentum("uniform", 0.5, 0.9).update(state, summed, LAYERS).centres[0]
    torch.testing.assert_close(stepped["body"], alone / 2)
    assert stepped["head"] == 1.0


def test_a_robust_rule_goes_only_before_what_takes_means(config) -> None:
    with pytest.raises(ConfigError, match="robust: goes before"):
        config("method=scaffold", "robust=median")
    for method in ("fedavg", "fedtsdp_full", "fedadam", "fedtsdp_tree"):
        config(f"method={method}", "robust=trimmed_mean")


def test_server_momentum_bears_liars_with_a_robust_rule(config, toy, tmp_path) -> None:
    how = "method=fedavgm", "attack=sign_flip", "attack.factor=9.0", "rounds=5", "model.hidden=[8]"
    found = {}
    for name, rule in (("mean", ()), ("median", ("robust=median",))):
        run_toy(config(*how, *rule, "partition.num_clients=10"), toy(10), tmp_path / name)
        found[name] = table(tmp_path / name, "rounds")["accuracy_mean"].iloc[-1]
    assert found["median"] > found["mean"] + 0.2


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_the_order_of_replies_changes_nothing(policy) -> None:
    models = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32).tolist()
    state, told = centred(8, 5), sent(*models)
    shuffled = Reply(1, tuple(told.rows[i] for i in (3, 1, 7, 0, 2, 6, 5, 4)))
    first, second = (agreed(policy, state, one).centres[0]["body"] for one in (told, shuffled))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrimmedMean(0.5), r"trim: must be in \[0, 0.5\)"),
        (lambda: MultiKrum(-0.1), r"attackers: must be in \[0, 0.5\)"),
        (lambda: NormBound("samples", 0.0), "bound: must be above 0"),
        (lambda: NormBound("votes", None), "weighting: must be one of"),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("option", ["median", "trimmed_mean", "multi_krum", "norm_bound"])
def test_runs_learn_and_go_on_where_they_stopped(config, toy, tmp_path, option: str) -> None:
    cfg = config("method=fedavg", f"robust={option}", "rounds=4", "model.hidden=[8]")
    whole, parts = run_twice(cfg, toy(6), tmp_path, 2)
    for name, expected in tables_of(whole).items():
        assert tables_of(parts)[name].equals(expected), name
    loss = table(whole, "rounds")["loss_mean"]
    assert loss.iloc[-1] < loss.iloc[0]
