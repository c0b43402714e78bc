import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.clustering.pairs import Pairs

NAN = np.nan
EVERYBODY = np.arange(4)


def _some(seed, clients, hidden):
    """A symmetric matrix with gaps: about a share `hidden` of the pairs."""
    rng = np.random.default_rng(seed)
    matrix = rng.random((clients, clients))
    matrix = (matrix + matrix.T) / 2
    gaps = rng.random((clients, clients)) < hidden
    matrix[gaps | gaps.T] = NAN
    np.fill_diagonal(matrix, 0)
    return matrix


matrices = st.builds(_some, st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0, 1))


def test_a_cohort_is_kept_by_client_id():
    block = np.array([[0, 0.5, 0.1], [0.5, 0, NAN], [0.1, NAN, 0]])
    pairs = Pairs.measured(5, np.array([4, 1, 2]), np.array([4, 1, 2]), block)
    assert pairs.keys.tolist() == [1 * 5 + 4, 2 * 5 + 4]
    assert pairs.values.tolist() == [0.5, 0.1]


def test_landmarks_are_columns():
    # Everybody against clients 1 and 3: the pair of both is there twice and counts once.
    block = np.array([[0.01, 0.03], [0, 0.13], [0.12, 0.23], [0.13, 0]])
    pairs = Pairs.measured(4, EVERYBODY, np.array([1, 3]), block)
    expected = [
        [0, 0.01, NAN, 0.03],
        [0.01, 0, 0.12, 0.13],
        [NAN, 0.12, 0, 0.23],
        [0.03, 0.13, 0.23, 0],
    ]
    np.testing.assert_array_equal(pairs.block(EVERYBODY), expected)
    assert len(pairs.keys) == 5


@given(matrices)
def test_a_matrix_comes_back_as_it_was(matrix):
    everybody = np.arange(len(matrix))
    pairs = Pairs.of(matrix)
    np.testing.assert_array_equal(pairs.block(everybody), matrix)
    assert (np.diff(pairs.keys) > 0).all()
    some = everybody[::-2]
    np.testing.assert_array_equal(pairs.block(some), matrix[np.ix_(some, some)])
    assert (pairs.block(some, own=1).diagonal() == 1).all()


def test_what_is_stored_is_read_again():
    pairs = Pairs.of(_some(0, 6, 0.3))
    arrays = pairs.stored("outputs")
    again = Pairs.read(arrays, "outputs", 6)
    assert again.keys is arrays["outputs.pairs"]
    assert again.values is arrays["outputs"]
    nothing = Pairs.read(arrays, "updates", 6)
    assert len(nothing.keys) == len(nothing.values) == 0
    assert np.isnan(nothing.block(np.arange(2))[0, 1])


def test_running_mean_by_hand():
    old = Pairs.of(np.array([[0, 0.4, NAN], [0.4, 0, 0.4], [NAN, 0.4, 0]]))
    new = Pairs.of(np.array([[0, 0.2, 0.2], [0.2, 0, NAN], [0.2, NAN, 0]]))
    # (0, 1) both: .75 * .4 + .25 * .2 = .35; (0, 2) first time; (1, 2) absent this time
    mixed = old.mixed(new, keep=0.75)
    assert mixed.keys.tolist() == [1, 2, 5]
    assert mixed.values == pytest.approx([0.35, 0.2, 0.4])
    assert old.values.tolist() == [0.4, 0.4]  # the inputs are left alone
    with pytest.raises(ValueError, match=r"keep must lie in 0\.\.1, got 1\.5"):
        old.mixed(new, keep=1.5)


@given(matrices, st.integers(0, 2**32 - 1))
def test_running_mean_equals_that_of_whole_matrices(old, seed):
    new = _some(seed, len(old), 0.5)
    expected = np.where(np.isnan(old), new, 0.75 * old + 0.25 * new)
    expected = np.where(np.isnan(new), old, expected)
    mixed = Pairs.of(old).mixed(Pairs.of(new), 0.75).block(np.arange(len(old)))
    np.testing.assert_array_equal(mixed, expected)


def test_pairs_are_chosen_by_their_ends():
    pairs = Pairs.of(np.ones((4, 4)))
    inside = pairs.among(np.array([True, False, True, True]))
    assert pairs.only(inside).keys.tolist() == [2, 3, 11]
    assert pairs.known_to(pairs.only(inside)).tolist() == inside.tolist()


@given(matrices)
def test_complete_equals_a_plain_loop(matrix):
    kept = np.arange(len(matrix))
    gaps = np.isnan(matrix)
    while gaps[np.ix_(kept, kept)].any():
        kept = np.delete(kept, gaps[np.ix_(kept, kept)].sum(axis=1).argmax())
    # Alone, a client is no pair: nobody is left where the loop leaves one.
    assert Pairs.of(matrix).complete().tolist() == (kept.tolist() if len(kept) > 1 else [])


def test_complete_drops_those_with_most_gaps():
    matrix = np.zeros((4, 4))
    matrix[1, [0, 2, 3]] = matrix[[0, 2, 3], 1] = NAN
    assert Pairs.of(matrix).complete().tolist() == [0, 2, 3]
    assert Pairs.of(np.zeros((2, 2))).complete().tolist() == [0, 1]


def test_clients_that_never_met_do_not_count_against_those_who_did():
    # Of 1,000 clients, 5 met in one round and 4 in another; the larger cohort has all its pairs.
    pairs = Pairs.measured(1000, np.arange(5), np.arange(5), np.zeros((5, 5)))
    later = Pairs.measured(1000, np.arange(900, 904), np.arange(900, 904), np.zeros((4, 4)))
    assert pairs.mixed(later, 0.5).complete().tolist() == [0, 1, 2, 3, 4]


def test_degrees_count_only_pairs_inside():
    matrix = np.zeros((4, 4))
    matrix[0, 2] = matrix[2, 0] = NAN
    assert Pairs.of(matrix).degrees(np.array([2, 0, 1])).tolist() == [1, 1, 2]


def test_means_to_groups_by_hand():
    matrix = np.array(
        [[0, 0.2, 0.4, NAN], [0.2, 0, 0.6, 0.8], [0.4, 0.6, 0, 0.1], [NAN, 0.8, 0.1, 0]]
    )
    pairs = Pairs.of(matrix)
    means = pairs.means_to(np.array([0, 0, 1, -1]))
    # client 3: to group 0 only client 1 is known; it is in no group itself
    expected = [[0.2, 0.4], [0.2, 0.6], [0.5, NAN], [0.8, 0.1]]
    np.testing.assert_allclose(means, expected)
    assert pairs.mean_to_mates(np.array([0, 0, 0, 1])) == pytest.approx([0.3, 0.4, 0.5, 0])
