import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from fedtsd.clustering import similarity
from fedtsd.clustering.similarity import (
    blocks_of,
    canonical_order,
    check_distances,
    cosine_distance,
    cosines_of,
    js_divergence,
    label_divergence,
)


def _as_laws(weights):
    weights[..., 0] += weights.sum(axis=-1) == 0  # a law needs some mass
    return weights


_shapes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(2, 5))
_weights = st.floats(0, 1, width=32) | st.just(0.0)
laws = _shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=_weights)).map(_as_laws)


def test_js_of_two_classes_by_hand():
    # Client 0 is sure of class 0; client 1 is split; client 2 is sure of class 1. In bits:
    # JS(0, 1): m = (3/4, 1/4), H(m) = 2 - 3/4 log2 3 = .8112781, minus (0 + 1) / 2 = .3112781
    # JS(1, 2) is its mirror image; JS(0, 2): m = (1/2, 1/2), H(m) = 1, minus 0 = 1.
    outputs = np.array([[[1, 0]], [[0.5, 0.5]], [[0, 1]]], dtype=np.float32)
    near = 1.5 - 0.75 * np.log2(3)
    mean, per_sample = js_divergence(outputs)
    np.testing.assert_allclose(mean, [[0, near, 1], [near, 0, near], [1, near, 0]], atol=1e-15)
    np.testing.assert_allclose(per_sample, [(1 + 2 * near) / 3], atol=1e-15)


def test_js_is_the_mean_over_samples_and_over_pairs():
    # Two clients agree on sample 0 (JS 0) and contradict each other on sample 1 (JS 1).
    outputs = np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]]], dtype=np.float64)
    mean, per_sample = js_divergence(outputs)
    np.testing.assert_allclose(mean, [[0, 0.5], [0.5, 0]], atol=1e-15)
    np.testing.assert_allclose(per_sample, [0, 1], atol=1e-15)


@given(laws)
def test_js_equals_scipy(outputs):
    reference = np.square(
        jensenshannon(
            outputs[:, None].astype(np.float64),
            outputs[None].astype(np.float64),
            base=2,
            axis=-1,
        )
    )
    mean, per_sample = js_divergence(outputs)
    np.testing.assert_allclose(mean, reference.mean(axis=-1), atol=1e-12)
    pairs = np.triu_indices(len(outputs), 1)
    if len(outputs) > 1:
        np.testing.assert_allclose(per_sample, reference[pairs].mean(axis=0), atol=1e-12)
    else:
        assert not per_sample.any()


@given(laws, st.randoms(use_true_random=False))
def test_js_is_a_bounded_divergence_that_ignores_client_ids(outputs, random):
    mean, per_sample = js_divergence(outputs)
    assert (mean == mean.T).all()
    assert not mean.diagonal().any()
    assert mean.min() >= 0
    assert mean.max() <= 1
    assert 0 <= per_sample.min() <= per_sample.max() <= 1
    order = random.sample(range(len(outputs)), len(outputs))
    permuted, permuted_samples = js_divergence(outputs[order])
    assert (permuted == mean[np.ix_(order, order)]).all()
    np.testing.assert_allclose(permuted_samples, per_sample, atol=1e-14)


@given(laws)
def test_root_of_js_obeys_the_triangle_inequality(outputs):
    distance = np.sqrt(js_divergence(outputs)[0])
    detour = distance[:, :, None] + distance[None]  # [i, j, k]: from i over j to k
    # The root turns a rounding error of 1e-16 into 1e-8.
    assert (distance[:, None] <= detour + 1e-7).all()


def test_identical_clients_do_not_differ_even_by_rounding():
    rng = np.random.default_rng(0)
    one = rng.dirichlet(np.full(10, 0.1), size=200).astype(np.float32)
    copies = np.stack([one, one, one * np.float32(1 - 1e-6)])
    mean, per_sample = js_divergence(copies)
    assert mean[0, 1] == 0
    assert mean.max() < 1e-12
    assert per_sample.max() < 1e-12


def test_small_differences_survive():
    # JS of (1/2 + e, 1/2 - e) and (1/2, 1/2) is e^2 / (2 ln 2) to second order.
    shift = 1e-4
    outputs = np.array([[[0.5 + shift, 0.5 - shift]], [[0.5, 0.5]]])
    assert js_divergence(outputs)[0][0, 1] == pytest.approx(shift**2 / (2 * np.log(2)), rel=1e-5)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_js_does_not_depend_on_the_block_size(monkeypatch, block):
    outputs = np.random.default_rng(1).dirichlet(np.ones(3), size=(9, 4))
    mean, per_sample = js_divergence(outputs)
    monkeypatch.setattr(similarity, "_BLOCK", block)
    blocked, blocked_samples = js_divergence(outputs)
    assert (blocked == mean).all()
    np.testing.assert_allclose(blocked_samples, per_sample, atol=1e-14)


@given(laws, st.data())
def test_js_to_landmarks_is_part_of_the_whole(outputs, data):
    chosen = data.draw(st.lists(st.integers(0, len(outputs) - 1), min_size=1, unique=True))
    mean, per_sample = js_divergence(outputs, np.array(chosen))
    assert (mean == js_divergence(outputs)[0][:, chosen]).all()
    pairs = [(i, j) for i in range(len(outputs)) for j in chosen if i != j]
    each = [js_divergence(outputs[[i, j]])[1] for i, j in pairs]
    np.testing.assert_allclose(per_sample, np.mean(each, axis=0) if pairs else 0, atol=1e-14)


def test_js_memory_is_bounded():
    outputs = np.random.default_rng(2).dirichlet(np.ones(10), size=(150, 200)).astype(np.float32)
    tracemalloc.start()
    js_divergence(outputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # all pairs at once would take 150^2 * 200 * 10 * 8 B = 360 MB


@pytest.mark.parametrize(
    "outputs",
    [
        np.ones((2, 3)),
        np.ones((2, 0, 3)),
        np.zeros((2, 1, 3)),
        np.full((2, 1, 3), np.nan),
        np.array([[[1.5, -0.5]]]),
    ],
)
def test_js_refuses_what_is_no_law(outputs):
    with pytest.raises(ValueError, match="outputs must"):
        js_divergence(outputs)


def test_label_divergence_by_hand():
    # Laws (1, 0), (1/2, 1/2), (0, 1) whatever the counts: the first toy again, from integers.
    near = 1.5 - 0.75 * np.log2(3)
    divergence = label_divergence(np.array([[30, 0], [5, 5], [0, 7]]))
    np.testing.assert_allclose(divergence, [[0, near, 1], [near, 0, near], [1, near, 0]])


def cosines_from_zero(updates, landmarks=None):
    """The cosines of models that moved by `updates` [C, D] from a model of zeros."""
    return cosines_of([[row] for row in updates], [np.zeros(updates.shape[1])], landmarks)


def test_cosines_by_hand():
    # Directions (1, 0), (1, 0), (-.6, .8), (-.6, -.8), (.2, 0) / .2, whose mean is (.36, 0).
    updates = np.array([[4, 0], [1, 0], [-3, 4], [-6, -8], [0.2, 0]])
    near = (0.96 * 0.96 - 0.8 * 0.8) / (0.96 * 0.96 + 0.8 * 0.8)
    far = -0.96 / np.hypot(0.96, 0.8)
    expected = [
        [1, 1, far, far, 1],
        [1, 1, far, far, 1],
        [far, far, 1, near, far],
        [far, far, near, 1, far],
        [1, 1, far, far, 1],
    ]
    np.testing.assert_allclose(cosines_from_zero(updates), expected, atol=1e-15)


@pytest.mark.parametrize("clients", [1, 3, 7])
def test_equal_updates_have_no_direction(clients):
    # The mean of equal rows is off by rounding; normalising that would invent directions.
    row = np.random.default_rng(3).standard_normal(50)
    np.testing.assert_array_equal(cosines_from_zero(np.tile(row, (clients, 1))), np.eye(clients))


@given(st.integers(2, 8), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_cosines_equal_a_plain_loop(clients, parameters, seed):
    rng = np.random.default_rng(seed)
    updates = 3 + rng.standard_normal((clients, parameters))  # one large direction in common
    cosines = cosines_from_zero(updates)
    directions = [row / np.linalg.norm(row) for row in updates]
    centred = directions - np.mean(directions, axis=0)
    for i in range(clients):
        for j in range(clients):
            norms = np.linalg.norm(centred[i]) * np.linalg.norm(centred[j])
            assert cosines[i, j] == pytest.approx(centred[i] @ centred[j] / norms, abs=1e-9)
    assert (cosines == cosines.T).all()
    assert (cosines.diagonal() == 1).all()
    assert np.abs(cosines).max() <= 1
    order = rng.permutation(clients)
    permuted = cosines_from_zero(updates[order])
    np.testing.assert_allclose(permuted, cosines[np.ix_(order, order)], atol=1e-9)


@pytest.mark.parametrize("apart", [1e-1, 1e-3, 1e-5])
def test_small_differences_between_like_updates_are_seen(apart):
    # Groups of rows that differ from what all have in common by this share of its length.
    rng = np.random.default_rng(8)
    ways = rng.standard_normal((3, 400))
    updates = rng.standard_normal(400) + apart * ways[[0, 0, 1, 1, 2, 2]]
    updates += 0.1 * apart * rng.standard_normal((6, 400))
    cosines = cosines_from_zero(updates)
    directions = updates / np.linalg.norm(updates, axis=1, keepdims=True)
    centred = directions - directions.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(cosines, unit @ unit.T, atol=1e-15 / apart**2)
    assert cosines[[0, 2, 4], [1, 3, 5]].min() > 0.9


def test_cosines_add_up_over_blocks(monkeypatch):
    updates = np.random.default_rng(4).standard_normal((5, 333)).astype(np.float32)
    whole = cosines_from_zero(updates)
    monkeypatch.setattr(similarity, "_BLOCK", 2)  # 6 parameters a block
    np.testing.assert_allclose(cosines_from_zero(updates), whole, atol=1e-13)


def test_landmarks_are_what_everybody_is_compared_with():
    updates = np.random.default_rng(5).standard_normal((9, 40)).astype(np.float32)
    updates[3] = 0  # did not move: the way from the mean to 0 is what is left of it
    chosen = np.array([1, 3, 8])
    part = cosines_from_zero(updates, chosen)
    length = np.linalg.norm(updates, axis=1, keepdims=True)
    directions = updates / np.where(length > 0, length, 1)
    centred = directions - directions[chosen].mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(part, unit @ unit[chosen].T, atol=1e-6)
    np.testing.assert_allclose(part[chosen], cosines_from_zero(updates[chosen]), atol=1e-12)
    assert (part[chosen, [0, 1, 2]] == 1).all()


def test_updates_come_tensor_by_tensor():
    rng = np.random.default_rng(6)
    rows = [[rng.standard_normal((3, 2)), rng.standard_normal(5)] for _ in range(4)]
    whole = np.array([np.concatenate([part.ravel() for part in row]) for row in rows])
    blocks = list(blocks_of(rows))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    cosines = cosines_of(rows, [np.zeros((3, 2)), np.zeros(5)])
    np.testing.assert_allclose(cosines, cosines_from_zero(whole), atol=1e-15)


def test_how_far_a_client_moved_does_not_matter_but_where_from_does():
    rng = np.random.default_rng(7)
    sent = rng.standard_normal(30)
    moves = rng.standard_normal((6, 30))
    near = sent + moves * np.array([1, 10, 0.1, 3, 0.5, 0])[:, None]
    far = 2 + sent + moves * np.array([1, 1, 1, 1, 1, 0])[:, None]

    def cosines(models, sent):
        return cosines_of([[row] for row in models], [sent])

    np.testing.assert_allclose(cosines(near, sent), cosines(far, 2 + sent), atol=1e-12)
    assert np.abs(cosines(near, sent) - cosines(near, 2 + sent)).max() > 0.1


def test_cosines_refuse_nonsense():
    with pytest.raises(ValueError, match="finite"):
        cosines_from_zero(np.array([[1.0, np.nan], [0.0, 1.0]]))


def test_cosine_distance_by_hand():
    # Chords of the unit circle: same point 0, right angle sqrt 2, opposite 2; rounding is clipped.
    cosines = np.array([[1, 0, -1], [0, 1 - 1e-9, 1 + 1e-9], [-1, 1 + 1e-9, 1]])
    root = np.sqrt(2)
    np.testing.assert_allclose(cosine_distance(cosines), [[0, root, 2], [root, 0, 0], [2, 0, 0]])


@pytest.mark.parametrize(
    ("distance", "message"),
    [
        (np.ones((2, 3)), "shape"),
        (np.ones((0, 0)), "shape"),
        (np.array([[0, np.nan], [np.nan, 0]]), "finite"),
        (np.array([[0.0, -1.0], [-1.0, 0.0]]), ">= 0"),
        (np.array([[0.0, 1.0], [2.0, 0.0]]), "symmetric"),
    ],
)
def test_check_distances_names_the_fault(distance, message):
    with pytest.raises(ValueError, match=f"gap must .*{message}"):
        check_distances(distance, "gap")


def test_canonical_order_is_that_of_sorted_rows():
    points = np.random.default_rng(8).integers(0, 4, (40, 2))  # many ties and some copies
    distance = np.abs(points[:, None] - points[None]).sum(axis=-1).astype(float)
    rows = np.sort(distance, axis=1)[canonical_order(distance)].tolist()
    assert rows == sorted(rows)


TOYS = {
    "two exact groups": np.kron(1 - np.eye(2), np.ones((3, 3))),
    "cycle": np.abs(np.exp(2j * np.pi * np.subtract.outer(np.arange(6), np.arange(6)) / 6) - 1),
    "line": np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0))),
    "equal": np.ones((6, 6)) - np.eye(6),
}


@pytest.mark.parametrize("toy", TOYS)
@given(order=st.permutations(range(6)))
def test_canonical_order_does_not_see_ids_even_in_ties(toy, order):
    distance = np.round(TOYS[toy], 9)
    place = canonical_order(distance)
    permuted = distance[np.ix_(order, order)]
    moved = canonical_order(permuted)
    assert sorted(place) == list(range(6))
    assert (permuted[np.ix_(moved, moved)] == distance[np.ix_(place, place)]).all()
