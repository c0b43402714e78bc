import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.clustering.artefacts import (
    follows_visits,
    follows_work,
    may_be_structure,
    share_of,
)


def test_groups_of_clients_that_came_together_follow_visits() -> None:
    rng = np.random.default_rng(0)
    visits = np.repeat([3, 4, 5, 6], 8)
    assert follows_visits(visits % 2, visits, rng)
    assert follows_visits(np.where(rng.random(32) < 0.2, 0, visits), visits, rng)
    assert not follows_visits(np.zeros(32, dtype=int), visits, rng)
    # All came in the last round: nothing can be said against the groups.
    assert not follows_visits(np.arange(32) % 4, np.full(32, 7), rng)
    by_chance = [follows_visits(rng.integers(3, size=32), visits, rng) for _ in range(100)]
    assert sum(by_chance) <= 12  # 5 expected


WORK = np.repeat([100, 120, 900, 1000], 4)


def test_groups_of_large_and_small_clients_follow_their_work() -> None:
    rng = np.random.default_rng(0)
    large = (WORK > 500).astype(int)
    assert follows_work(large, WORK, rng)
    assert follows_work(1 - large, WORK, rng)
    assert follows_work(np.where(rng.random(16) < 0.1, 0, large), WORK, rng)
    # One residual of the smallest beside a group of the others.
    sizes = np.array([600, 640, 700, 720, 750, 800, 860, 900, 990, 1000, 1100, 1200, 20, 25, 30])
    assert follows_work((sizes < 100).astype(int), sizes, rng)


def test_groups_with_large_and_small_clients_in_each_do_not() -> None:
    rng = np.random.default_rng(0)
    assert not follows_work(np.arange(16) % 4, WORK, rng)
    assert not follows_work(np.zeros(16, dtype=int), WORK, rng)
    by_chance = [follows_work(rng.integers(3, size=16), WORK, rng) for _ in range(300)]
    assert sum(by_chance) <= 9  # 3 expected


def test_work_that_hardly_differs_groups_nobody() -> None:
    rng = np.random.default_rng(0)
    work = np.repeat([600, 602], 8)
    assert not follows_work((work > 600).astype(int), work, rng)
    assert not follows_work(np.repeat([0, 1], 8), np.full(16, 600), rng)
    assert not follows_work(np.repeat([0, 1], 8), np.zeros(16, dtype=int), rng)


@given(st.permutations(range(16)), st.sampled_from([np.arange(16) % 4, np.repeat([0, 3], 8)]))
def test_neither_order_nor_unit_matters(order: list[int], labels: np.ndarray) -> None:
    asked = follows_work(labels, WORK, np.random.default_rng(0))
    again = follows_work(labels[order], 7 * WORK[order], np.random.default_rng(1))
    assert asked == again


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 0, 0], False), ([0, 0, 1], False), ([0, 1, 2], False), ([0, 0, 1, 1, 2], True)],
)
def test_two_groups_need_two_members_each(labels: list[int], expected: bool) -> None:
    equal = np.full(len(labels), 600)
    assert may_be_structure(np.array(labels), equal, np.random.default_rng(0)) == expected


def test_groups_that_follow_work_are_no_structure() -> None:
    large = (WORK > 500).astype(int)
    assert not may_be_structure(large, WORK, np.random.default_rng(0))
    assert may_be_structure(np.arange(16) % 4, WORK, np.random.default_rng(0))


def test_the_share_counts_pairs_of_different_groups_alone() -> None:
    labels = np.array([0, 0, 1])
    divergence = np.array([[0, 0.9, 0.4], [0.9, 0, 0.6], [0.4, 0.6, 0]])
    part = np.array([[0, 0.8, 0.1], [0.8, 0, 0.2], [0.1, 0.2, 0]])
    assert share_of(labels, divergence, part) == pytest.approx(0.3)
    assert share_of(np.zeros(3, dtype=int), divergence, part) == 0
    assert share_of(labels, np.zeros((3, 3)), np.zeros((3, 3))) == 0
