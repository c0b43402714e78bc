import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, squareform
from sklearn.metrics import adjusted_rand_score, silhouette_score

from fedtsd.clustering.split import eject, propose, renumber, silhouettes


def _line(*places):
    return np.abs(np.subtract.outer(places, places)).astype(float)


def _symmetric(count, pairs):
    matrix = np.zeros((count, count))
    for (i, j), value in pairs.items():
        matrix[i, j] = matrix[j, i] = value
    return matrix


def _permuted(matrix, order):
    return matrix[np.ix_(order, order)]


def _random_distance(rng, clients):
    points = rng.standard_normal((clients, 3))
    return cdist(points, points)


def test_proposal_by_hand():
    # Clients at 0, 10, 1, 11. Own group 1 away; the other one, seen from 0, (10 + 11) / 2 = 10.5,
    # from 1, (9 + 10) / 2 = 9.5. Silhouettes 9.5 / 10.5 and 8.5 / 9.5, twice each.
    proposal = propose(_line(0, 10, 1, 11))
    assert proposal.labels.tolist() == [0, 1, 0, 1]
    assert proposal.silhouette == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2)


def test_linkage_is_average():
    # 3 and 6 join (3 apart). 11 joins them: (8 + 5) / 2 = 6.5, to 18 it is 7. 18 joins 27, 9 apart:
    # to the three it is (15 + 12 + 7) / 3 = 11.3. Single linkage would join 18 to 11 (7 < 9);
    # complete linkage too (7 < 8), and both then leave 27 alone.
    assert propose(_line(3, 6, 11, 18, 27)).labels.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("groups", [2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_are_found(groups, seed):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(24) % groups)
    # Group centres are corners of a simplex, so all are equally far apart.
    points = 4 * np.eye(groups)[truth] + 0.4 * rng.standard_normal((24, groups))
    proposal = propose(cdist(points, points))
    assert adjusted_rand_score(truth, proposal.labels) == 1
    assert proposal.silhouette > 0.5


def test_unequal_groups_are_found():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [14, 4, 2])
    points = 5 * np.eye(3)[truth] + 0.3 * rng.standard_normal((20, 3))
    assert propose(cdist(points, points)).labels.tolist() == truth.tolist()


@pytest.mark.parametrize("limit", [2, 3, None])
def test_the_number_of_clusters_is_limited(limit):
    # Four groups of three; the first two are the closest pair of groups, then the next one.
    places = [start + step for start in (0, 10, 100, 300) for step in (0.0, 0.1, 0.3)]
    assert propose(_line(*places), limit).labels.max() + 1 == (limit or 4)
    # Half the clients at most: six pairs would be 6 = 12 / 2, twelve loners are not considered.
    pairs = [10 * group + step for group in range(6) for step in (0, 0.1)]
    assert propose(_line(*pairs)).labels.max() + 1 == 6


@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.sampled_from(["cloud", "grid", "copies"]))
def test_silhouettes_of_all_cuts_equal_those_of_scikit_learn(seed, clients, kind):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((clients, 2))
    if kind == "grid":  # many equal distances, so many merges at one height
        points = rng.integers(0, 3, (clients, 2)).astype(float)
    if kind == "copies":
        points = points[rng.integers(0, clients, clients)]
    distance = cdist(points, points)
    tree = linkage(squareform(distance, checks=False), method="average")
    most = clients // 2
    expected = {}
    for clusters in range(2, most + 1):
        labels = fcluster(tree, clusters, criterion="maxclust")
        if labels.max() == clusters:
            expected[clusters] = silhouette_score(distance, labels, metric="precomputed")
    found = silhouettes(distance, tree, most)
    assert sorted(found) == sorted(expected)
    for clusters, value in expected.items():
        assert found[clusters] == pytest.approx(value, abs=1e-12)


def test_fewer_clusters_win_a_tie():
    # Four pairs, .2 inside; pairs of one half .5 apart; halves 1 apart. Four clusters: silhouette
    # (.5 - .2) / .5 = .6. Two clusters: own (.2 + 2 * .5) / 3 = .4, other 1, so .6 again. Three
    # cannot be cut: both halves join at .5.
    halves = np.kron(1 - np.eye(2), np.ones((4, 4)))
    pairs = 0.5 * np.kron(np.kron(np.eye(2), 1 - np.eye(2)), np.ones((2, 2)))
    inside = 0.2 * np.kron(np.eye(4), 1 - np.eye(2))
    proposal = propose(halves + pairs + inside)
    assert proposal.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert proposal.silhouette == pytest.approx(0.6)


@pytest.mark.parametrize(
    "distance",
    [np.zeros((8, 8)), 1 - np.eye(8), (1 - np.eye(8)) / 3, np.zeros((1, 1)), _line(0, 1, 9)],
)
def test_nothing_to_cut_is_one_cluster(distance):
    proposal = propose(distance)
    assert proposal.labels.tolist() == [0] * len(distance)
    assert proposal.silhouette == 0


def test_copies_are_clustered_by_what_they_copy():
    distance = np.kron(1 - np.eye(3), np.ones((4, 4)))
    proposal = propose(distance)
    assert proposal.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert proposal.silhouette == 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 24))
def test_proposal_does_not_see_client_ids(seed, clients):
    rng = np.random.default_rng(seed)
    distance = _random_distance(rng, clients)
    order = rng.permutation(clients)
    proposal, permuted = propose(distance), propose(_permuted(distance, order))
    assert permuted.labels.tolist() == renumber(proposal.labels[order]).tolist()
    assert permuted.silhouette == proposal.silhouette
    assert proposal.labels.tolist() == renumber(proposal.labels).tolist()
    assert proposal.labels.max() < max(2, clients // 2 + 1)


def test_ties_are_not_settled_by_client_ids():
    # On an even ring every linkage step is a tie: ids must still not decide who joins whom.
    ring = np.exp(2j * np.pi * np.arange(9) / 9)
    distance = np.round(np.abs(np.subtract.outer(ring, ring)), 9)
    sizes = sorted(np.bincount(propose(distance).labels))
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(9)
        assert sorted(np.bincount(propose(_permuted(distance, order)).labels)) == sizes


def test_proposal_refuses_nonsense():
    with pytest.raises(ValueError, match="max_clusters must be None or at least 2, got 1"):
        propose(_line(0, 1, 2, 3), 1)
    with pytest.raises(ValueError, match="finite"):
        propose(np.full((4, 4), np.nan))


def test_ejecting_the_worst_saves_another():
    # Means in {0, 1, 2, 3}: 0 and 1 have (.1 + .1 + .6) / 3 = .267, 2 has (.1 + .1 + .9) / 3 =
    # .367 > .32, 3 has (.6 + .6 + .9) / 3 = .7. Without 3 all are at .1, so 2 stays.
    distance = _symmetric(
        4, {(0, 1): 0.1, (0, 2): 0.1, (1, 2): 0.1, (0, 3): 0.6, (1, 3): 0.6, (2, 3): 0.9}
    )
    assert eject(np.zeros(4, int), distance, 0.32).tolist() == [0, 0, 0, 1]
    order = [3, 2, 0, 1]
    assert eject(np.zeros(4, int), _permuted(distance, order), 0.32).tolist() == [0, 1, 1, 1]


def test_means_are_taken_again_after_every_ejection():
    # Groups {0, 1, 2} at .1 and {3, 4} at .1, .5 across: 0 has (.2 + 1) / 4 = .3, 3 has
    # (.1 + 1.5) / 4 = .4. 3 or 4 leaves; the other is then at 1.5 / 3 = .5 and leaves as well.
    group = np.array([0, 0, 0, 1, 1])
    distance = np.where(group[:, None] == group, 0.1, 0.5)
    np.fill_diagonal(distance, 0)
    assert eject(np.zeros(5, int), distance, 0.32).tolist() == [0, 0, 0, 1, 1]


def test_misfits_of_all_clusters_and_singletons_form_one_residual():
    # Clusters {0, 1, 2}, {3, 4, 5}, {6}. 2 and 5 are .9 from everyone, the others .1.
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    distance = np.full((7, 7), 0.1)
    distance[[2, 5]] = distance[:, [2, 5]] = 0.9
    np.fill_diagonal(distance, 0)
    assert eject(labels, distance, 0.5).tolist() == [0, 0, 1, 2, 2, 1, 1]


def test_limit_itself_is_allowed():
    pairs = _symmetric(4, {(0, 1): 0.25, (2, 3): 0.26})
    loner = np.pad(pairs, (0, 1))
    assert eject(np.array([0, 0, 1, 1, 2]), loner, 0.25).tolist() == [0, 0, 1, 1, 1]
    two_pairs = np.where(np.eye(4) == 1, 0, 0.3)
    # Either of a pair goes, the other is then alone: all in the residual, which is one cluster.
    assert eject(np.array([0, 0, 1, 1]), two_pairs, 0.25).tolist() == [0, 0, 0, 0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.floats(0, 3))
def test_ejection_leaves_a_partition_without_misfits(seed, clients, limit):
    rng = np.random.default_rng(seed)
    distance = _random_distance(rng, clients)
    before = rng.integers(0, 4, clients)
    after = eject(before, distance, limit)
    assert after.tolist() == renumber(after).tolist()
    moved = []
    for cluster in np.unique(after):
        members = np.flatnonzero(after == cluster)
        mean = distance[np.ix_(members, members)].sum(axis=1) / max(1, len(members) - 1)
        settled = len(set(before[members])) == 1 and len(members) > 1 and (mean <= limit).all()
        moved.append(not settled)
    assert sum(moved) <= 1  # the residual
    order = rng.permutation(clients)
    permuted = eject(before[order], _permuted(distance, order), limit)
    assert permuted.tolist() == renumber(after[order]).tolist()


def test_eject_refuses_nonsense():
    with pytest.raises(ValueError, match="labels must have length N = 3, got 2"):
        eject(np.zeros(2, int), _line(0, 1, 2), 0.3)
    with pytest.raises(ValueError, match="dissimilarity must be finite"):
        eject(np.zeros(2, int), np.full((2, 2), np.nan), 0.3)


@given(st.lists(st.integers(-5, 5), max_size=12))
def test_renumber_keeps_the_clusters(labels):
    numbered = renumber(np.array(labels, dtype=int))
    first_seen = list(dict.fromkeys(labels))
    assert numbered.tolist() == [first_seen.index(label) for label in labels]
