"""Two stages that copies cannot lead: by hand, and in the rounds of a run."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from fedtsd.clustering.similarity import centred_cosines, cosine_distance
from fedtsd.clustering.split import least_silhouette, propose
from fedtsd.clustering.two_stage import TwoStage
from fedtsd.clustering.two_stage_wary import WaryTwoStage
from fedtsd.compose import check, composed
from fedtsd.errors import ConfigError
from tests.clustering.test_two_stage import POLICY, grouped, rounds, server

WARY: WaryTwoStage = check(composed(["method=fedtsdp", "clustering=two_stage_wary"])).clustering
COPIES = np.array([0, 0, 0, 0, 0, *range(1, 16)])
"""Who is really whom: four of 20 clients pass for client 0."""


def alike(seed: int, size: int = 200) -> np.ndarray:
    """Cosines of updates of 20 clients without any structure, but that four are copies."""
    updates = 1 + np.random.default_rng(seed).standard_normal((16, size))
    return centred_cosines(updates[COPIES])


def in_groups(seed: int, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The same with 3 groups, and the group of each client."""
    rng = np.random.default_rng(seed)
    groups = np.where(COPIES == 0, 0, COPIES % 3)
    points = 20 * np.eye(3, size)[groups] + rng.standard_normal((16, size))[COPIES]
    return cdist(points, points), groups


def test_the_least_silhouette_by_hand() -> None:
    places = np.array([0.0, 1.0, 10.0, 11.0, 40.0])
    distance = np.abs(np.subtract.outer(places, places))
    # 0: (10.5 - 1) / 10.5, 1: (9.5 - 1) / 9.5; 10 and 11 the same; the one alone does not count.
    labels = np.array([0, 0, 1, 1, 2])
    assert least_silhouette(distance, labels) == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2)
    assert least_silhouette(distance, np.array([0, 1, 0, 0, 1])) < 0
    assert least_silhouette(distance, np.array([0, 1, 2, 3, 3])) == pytest.approx(
        (-28 / 29 + 1 / 30) / 2
    )


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_a_cluster_unless_each_must_stand_apart(seed: int) -> None:
    distance = cosine_distance(alike(seed))
    lured = propose(distance)
    assert lured.labels.tolist() == [0] * 5 + [1] * 15
    assert lured.silhouette > 0.25  # of five of twenty it is 1
    wary = propose(distance, each=0.2)
    assert not wary.labels.any()
    assert wary.silhouette == 0


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_found_beside_copies(seed: int) -> None:
    distance, groups = in_groups(seed)
    wary = propose(distance, 12, each=0.2)
    assert adjusted_rand_score(groups, wary.labels) == 1
    assert least_silhouette(distance, wary.labels) == pytest.approx(wary.silhouette, abs=0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 16), st.integers(0, 999), st.floats(-1, 1))
def test_every_cluster_of_a_cut_stands_as_far_apart_as_asked(count, seed, each) -> None:
    points = np.random.default_rng(seed).standard_normal((count, 2))
    distance = cdist(points, points)
    found = propose(distance, each=each)
    if found.labels.any():
        assert least_silhouette(distance, found.labels) >= each
    plain, same = propose(distance), propose(distance, each=-1.0)
    assert np.array_equal(plain.labels, same.labels)
    assert found.silhouette <= plain.silhouette + 1e-9


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
    with pytest.raises(ConfigError, match=r"clustering.each_silhouette: must be in \[-1, 1\]"):
        config("method=fedtsdp", "clustering=two_stage_wary", "clustering.each_silhouette=1.5")
