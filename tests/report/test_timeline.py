import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtsd.report.timeline import NOBODY, Block, changes, named_blocks, rectangles

MEMBERS = arrays(
    np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-1, 2)
)


def test_spans_without_a_change() -> None:
    members = np.array([[0, 0, 1, 1, 1], [0, 0, 0, 2, 2]])
    assert changes(members) == [(0, 2), (2, 3), (3, 5)]
    assert changes(members[:, :1]) == [(0, 1)]


def test_a_block_lasts_while_its_own_rows_stay_together() -> None:
    members = np.array([[0, 1, 1], [0, 1, 1], [0, 2, 3]])
    assert set(rectangles(members)) == {
        Block(0, 0, 3, 0, 1),
        Block(1, 0, 2, 1, 3),
        Block(2, 2, 3, 1, 2),
        Block(3, 2, 3, 2, 3),
    }


@given(MEMBERS)
def test_blocks_tile_the_timeline(members: np.ndarray) -> None:
    painted = np.full_like(members, -9)
    for block in rectangles(members):
        patch = painted[block.top : block.bottom, block.begin : block.end]
        assert (patch == -9).all()
        patch[:] = block.cluster
    np.testing.assert_array_equal(painted, members)


def test_an_area_is_named_once_in_its_largest_block_and_not_where_the_margin_names_it() -> None:
    members = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 1, 1, 1],
            [0, 0, 0, 2, 1, 1],
        ]
    )
    assert set(named_blocks(members)) == {Block(0, 0, 3, 0, 3), Block(2, 2, 3, 3, 4)}


def test_two_areas_of_one_cluster_that_do_not_touch_are_both_named() -> None:
    members = np.array([[4, 1, 1, 1], [0, 0, 4, 1]])
    assert {(b.cluster, b.top) for b in named_blocks(members)} == {(4, 0), (0, 1), (4, 1)}


def test_absence_is_not_named() -> None:
    assert named_blocks(np.array([[NOBODY, 0], [NOBODY, 0]])) == []
