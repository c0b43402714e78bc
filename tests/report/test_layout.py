from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.report.layout import blocks, spread


def test_positions_that_are_far_apart_stay() -> None:
    assert spread([5.0, 1.0, 9.0], 2.0, 0.0, 10.0) == pytest.approx([5.0, 1.0, 9.0])


def test_two_that_collide_move_by_the_same_amount() -> None:
    assert spread([5.0, 5.5], 2.0, 0.0, 10.0) == pytest.approx([4.25, 6.25])


def test_a_group_at_the_edge_is_pushed_inside() -> None:
    assert spread([10.0, 10.0, 9.9], 1.0, 0.0, 10.0) == pytest.approx([10.0, 9.0, 8.0])


def test_the_first_of_equals_ends_up_highest() -> None:
    assert spread([5.0, 5.0], 1.0, 0.0, 10.0) == pytest.approx([5.5, 4.5])


@given(st.lists(st.floats(0, 100), max_size=8), st.floats(0.1, 10))
def test_neighbours_keep_apart_inside_the_range_in_their_order(
    wanted: list[float], gap: float
) -> None:
    placed = spread(wanted, gap, 0.0, 100.0)
    by_place = sorted(placed)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(by_place))
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in placed)
    for i, a in enumerate(wanted):
        assert all(placed[i] < placed[j] for j, b in enumerate(wanted) if a < b)


def test_blocks_are_runs_of_equal_neighbours() -> None:
    assert list(blocks([3, 3, 1, 3])) == [(3, 0, 2), (1, 2, 3), (3, 3, 4)]
    assert list(blocks([])) == []
