"""Two stages that copies cannot lead: by hand, and in the rounds of a run."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from fedtsd.clustering.similarity import cosine_distance, cosines_of
from fedtsd.clustering.split import Proposal
from fedtsd.clustering.two_stage import TwoStage
from fedtsd.clustering.two_stage_wary import WaryTwoStage, accompanied, between, copies
from fedtsd.compose import check, composed
from fedtsd.errors import ConfigError
from tests.clustering.test_two_stage import POLICY, grouped, rounds, server

WARY: WaryTwoStage = check(composed(["method=fedtsdp", "clustering=two_stage_wary"])).clustering
COPIES = np.array([0, 0, 0, 0, 0, *range(1, 16)])
"""Who is really whom: four of 20 clients pass for client 0."""


def alike(seed: int, size: int = 200) -> np.ndarray:
    """Cosines of updates of 20 clients without any structure, but that four are copies."""
    updates = 1 + np.random.default_rng(seed).standard_normal((16, size))
    return cosines_of([[row] for row in updates[COPIES]], [np.zeros(size)])


def in_groups(seed: int, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The same with 3 groups, and the group of each client."""
    rng = np.random.default_rng(seed)
    groups = np.where(COPIES == 0, 0, COPIES % 3)
    points = 20 * np.eye(3, size)[groups] + rng.standard_normal((16, size))[COPIES]
    return cdist(points, points), groups


def test_copies_by_hand() -> None:
    places = np.array([0.0, 10.0, 10.1, 20.0, 30.0, 30.2, 30.4])
    distance = np.abs(np.subtract.outer(places, places))
    # Nearest neighbours: 10, 0.1, 0.1, 9.9, 0.2, 0.2, 0.2; three quarters are within 5.05.
    who = copies(distance, 0.1)
    assert who.tolist() == [0, 1, 1, 2, 3, 3, 3]  # 0.4 to the last, by way of the one between
    assert copies(distance, 0.0).tolist() == list(range(7))
    assert copies(distance, 0.03).tolist() == [0, 1, 1, 2, 3, 4, 5]
    expected = np.array([[0, 10.05, 20, 30.2], [10.05, 0, 9.95, 20.15], [20, 9.95, 0, 10.2],
                         [30.2, 20.15, 10.2, 0]])  # fmt: skip
    np.testing.assert_allclose(between(distance, who), expected)


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_a_cluster_unless_they_count_once(seed: int) -> None:
    distance = cosine_distance(alike(seed))
    lured, found = POLICY.examine(distance, np.random.default_rng(0))
    assert lured.labels.tolist() == [0] * 5 + [1] * 15
    assert lured.silhouette > 0.25  # of five of twenty it is 1
    assert found.p_value < 0.05
    wary, found = WARY.examine(distance, np.random.default_rng(0))
    assert wary.silhouette < 0.15
    assert found.value < WARY.hopkins_threshold


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_found_beside_copies(seed: int) -> None:
    distance, groups = in_groups(seed)
    wary, _ = WARY.examine(distance, np.random.default_rng(0))
    assert adjusted_rand_score(groups, wary.labels) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 16), st.integers(0, 999), st.floats(0, 0.9))
def test_copies_stay_together_and_those_that_count_are_apart(count, seed, below) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, 6))[rng.integers(0, count, count)]
    distance = cdist(points, points)
    who = copies(distance, below)
    assert np.array_equal(np.unique(who), np.arange(who.max() + 1))
    order = rng.permutation(count)
    again = copies(distance[np.ix_(order, order)], below)
    assert adjusted_rand_score(who[order], again) == 1  # whatever the ids
    if who.max() > 3:
        proposal, _ = dataclasses.replace(WARY, copy_below=below).examine(distance, rng)
        assert all(len(set(proposal.labels[who == one])) == 1 for one in who)


def test_copies_of_one_do_not_make_its_mates_misfits() -> None:
    # Client 0 and its copies are far from 1, and 2 is near to both.
    near = np.array([[0.0, 0.5, 0.1], [0.5, 0.0, 0.1], [0.1, 0.1, 0.0]])
    who = np.array([0, 0, 0, 0, 1, 2])
    divergence = near[np.ix_(who, who)]
    labels = np.zeros(6, dtype=np.int64)
    # The mean divergence of 1 is (4 * 0.5 + 0.1) / 5 = 0.42, or counted once (0.5 + 0.1) / 2 = 0.3.
    assert POLICY.cleaned(labels, divergence).tolist() == [0, 0, 0, 0, 1, 0]
    assert not WARY.cleaned(labels, divergence).any()


def test_who_is_copied_is_not_sent_away() -> None:
    # Client 0 and its copies are far from 1, 2 and 3, which are near each other; 4 is far from all.
    near = np.full((5, 5), 0.05)
    near[0, :] = near[:, 0] = 0.4
    near[4, :] = near[:, 4] = 0.6
    np.fill_diagonal(near, 0.0)
    alone, lured = np.arange(5), np.array([0, 0, 0, 0, 1, 2, 3, 4])
    for who, expected in ((alone, [0, 1, 1, 1, 0]), (lured, [0, 0, 0, 0, 0, 0, 0, 1])):
        labels = np.zeros(len(who), dtype=np.int64)
        assert WARY.cleaned(labels, near[np.ix_(who, who)]).tolist() == expected


def test_who_is_copied_is_not_cut_off_alone() -> None:
    # Client 0 and four copies of it, and three mates that are nearer to each other.
    points = np.random.default_rng(1).standard_normal((4, 50))
    points[0, 0] += 12
    distance = cdist(points, points)[np.ix_(COPIES[:8], COPIES[:8])]
    lured, _ = POLICY.examine(distance, np.random.default_rng(0))
    assert lured.labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    wary, _ = WARY.examine(distance, np.random.default_rng(0))
    assert not wary.labels.any()
    assert wary.silhouette == 0


def test_who_is_copied_joins_the_nearest_of_the_other_clusters() -> None:
    places = np.array([0.0, 3.0, 4.0, -5.0, -6.0])
    distance = np.abs(np.subtract.outer(places, places))
    cut = Proposal(np.array([0, 1, 1, 2, 2]), 0.5)
    joined = accompanied(cut, distance, np.array([True, False, False, False, False]))
    assert joined.labels.tolist() == [0, 0, 0, 1, 1]
    # Of 0: mates 3.5, others 5.5. Of 3 and 4: mates 2 and 2.5, others 8.5 and 9.5; 9.5, 10.5 for 1.
    each = 1 - 3.5 / 5.5, 1 - 2 / 8.5, 1 - 2.5 / 9.5, 1 - 1 / (22 / 3), 1 - 1 / (25 / 3)
    assert joined.silhouette == pytest.approx(np.mean(each))
    for copied in ([False] * 5, [False, True, True, False, False]):  # nobody; who has company
        assert accompanied(cut, distance, np.array(copied)) is cut


def test_without_copies_nothing_changes() -> None:
    points = np.random.default_rng(2).standard_normal((12, 40))
    distance = cdist(points, points)
    for policy in (POLICY, WARY):
        proposal, result = policy.examine(distance, np.random.default_rng(0))
        if policy is POLICY:
            expected = proposal, result
    assert np.array_equal(proposal.labels, expected[0].labels)
    assert result == expected[1]


def test_copies_split_a_federation_of_equals_only_without_the_rule() -> None:
    state = server(20, updates=alike(0))
    lured = rounds(state, [5, 6], policy=POLICY)
    assert lured.members(0).tolist() == [0, 1, 2, 3, 4]
    after = rounds(state, range(5, 9), policy=WARY)
    assert len(after.centres) == 1
    assert not any(decision.split for decision in after.decisions)


def test_honest_groups_are_split_as_ever() -> None:
    groups = np.repeat([0, 1, 2], 6)
    state = server(18, outputs=grouped(groups, 0.05, 0.8))
    plain, wary = (rounds(state, [3, 4], policy=policy) for policy in (POLICY, WARY))
    assert wary.assignment.tolist() == plain.assignment.tolist() == groups.tolist()


def test_it_has_the_defaults_of_the_plain_policy() -> None:
    shared = {f.name: getattr(WARY, f.name) for f in dataclasses.fields(TwoStage)}
    assert shared == {f.name: getattr(POLICY, f.name) for f in dataclasses.fields(TwoStage)}


def test_the_limit_is_checked(config) -> None:
    with pytest.raises(ConfigError, match=r"clustering.copy_below: must be in \[0, 1\)"):
        config("method=fedtsdp", "clustering=two_stage_wary", "clustering.copy_below=1.0")
