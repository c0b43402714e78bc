import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import binom, kstest

from fedtsd.clustering import hopkins
from fedtsd.clustering.hopkins import Hopkins, classical_mds
from fedtsd.clustering.similarity import js_divergence
from fedtsd.clustering.split import propose

RECOMMENDED = Hopkins(dimensions=3, sample_share=0.25, repetitions=20, reference_draws=99)


def _distance(points):
    return cdist(points, points)


def _groups(rng, count, of, spread=0.05, dimensions=3):
    centres = np.repeat(rng.standard_normal((count, dimensions)) * 3, of, axis=0)
    return centres + spread * rng.standard_normal(centres.shape)


def _textbook(points, sampled, rng):
    """Hopkins and Skellam with the bounding box, in plain loops."""
    dimensions = points.shape[1]
    reference = rng.uniform(points.min(axis=0), points.max(axis=0), (sampled, dimensions))
    far = near = 0.0
    for origin in reference:
        far += min(np.linalg.norm(points - origin, axis=1)) ** dimensions
    for i in rng.choice(len(points), sampled, replace=False):
        near += min(np.linalg.norm(np.delete(points, i, axis=0) - points[i], axis=1)) ** dimensions
    return far / (far + near)


@pytest.mark.parametrize(
    ("points", "gap"),
    [
        # Two points one apart: one axis, spread 1/2; both are sampled, each with a gap of 1.
        ([[-0.5], [0.5]], 1.0),
        # A 4 x 1 rectangle: axes with spreads 2 and 1/2 (whitening would make them equal), two of
        # four sampled, nearest neighbour 1 away, and 1 ** 2 = 1.
        ([[-2, -0.5], [-2, 0.5], [2, -0.5], [2, 0.5]], 1.0),
        # A 6 x 3 x 2 box, all eight corners: spreads 3, 1.5, 1; m = 2; gap 2 ** 3 = 8.
        ([[x, y, z] for x in (-3, 3) for y in (-1.5, 1.5) for z in (-1, 1)], 8.0),
    ],
)
def test_value_by_hand(points, gap):
    points = np.array(points, dtype=float)
    axes = points.shape[1]
    hopkins = Hopkins(dimensions=axes, sample_share=0.25, repetitions=20_000, reference_draws=1)
    value = hopkins.test(_distance(points), np.random.default_rng(0)).value
    # H = E[(f1 + f2) / (f1 + f2 + 2 gap)], f = distance ** d of a Gaussian point to the corners
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((40_000, axes)) * np.abs(points).max(axis=0)
    far = (cdist(drawn, points).min(axis=1) ** axes).reshape(-1, 2).sum(axis=1)
    assert value == pytest.approx((far / (far + 2 * gap)).mean(), abs=0.01)


def test_p_value_counts_the_draws_that_reach_the_value():
    rng = np.random.default_rng(0)
    grouped = RECOMMENDED.test(_distance(_groups(rng, 4, 5)), rng)
    assert grouped.p_value == 1 / 100  # no cloud reaches it
    # A grid is spaced more evenly than any cloud: every draw reaches the value.
    grid = np.stack(np.meshgrid(*[range(3)] * 3), axis=-1).reshape(27, 3)
    assert RECOMMENDED.test(_distance(grid), rng).p_value == 1
    coarse = Hopkins(dimensions=3, sample_share=0.25, repetitions=5, reference_draws=4)
    assert coarse.test(_distance(_groups(rng, 4, 5)), rng).p_value == 1 / 5


@pytest.mark.parametrize("clients", [1, 2, 20])
def test_equal_clients_form_no_groups(clients):
    result = RECOMMENDED.test(np.zeros((clients, clients)), np.random.default_rng(0))
    assert (result.value, result.p_value) == (0.5, 1.0)


@pytest.mark.parametrize("clients", [20, 60])
def test_value_is_high_for_groups(clients):
    rng = np.random.default_rng(clients)
    distance = _distance(_groups(rng, 4, clients // 4))
    assert RECOMMENDED.test(distance, rng).value > 0.95


def test_gaussian_cloud_is_neutral_where_the_textbook_form_sees_groups():
    amended, textbook = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        points = rng.standard_normal((200, 3))
        amended.append(RECOMMENDED.test(_distance(points), rng).value)
        textbook.append(np.mean([_textbook(points, 50, rng) for _ in range(3)]))
    assert np.mean(amended) == pytest.approx(0.5, abs=0.05)
    assert min(textbook) > 0.7


def test_textbook_form_agrees_on_groups():
    rng = np.random.default_rng(5)
    points = _groups(rng, 4, 15)
    assert _textbook(points, 15, rng) > 0.95
    assert RECOMMENDED.test(_distance(points), rng).value > 0.95


@pytest.mark.parametrize("spread", [[1, 1, 1], [1, 0.2, 0.04], [1] * 10], ids=str)
def test_p_values_of_gaussian_clouds_are_uniform(spread):
    rng = np.random.default_rng(len(spread))
    hopkins = Hopkins(dimensions=3, sample_share=0.25, repetitions=20, reference_draws=39)
    clouds = rng.standard_normal((220, 20, len(spread))) * spread
    p_values = [hopkins.test(_distance(cloud), rng).p_value for cloud in clouds]
    assert kstest(p_values, "uniform").pvalue > 0.01


def _gate(distance, rng):
    significant = RECOMMENDED.test(distance, rng).p_value < 0.05
    return significant and propose(distance).silhouette >= 0.25


def test_gate_on_gaussian_clouds_keeps_its_level():
    # Each test alarms with probability at most .05; 2-d and 3-d clouds always pass the silhouette.
    rng = np.random.default_rng(0)
    dimensions = [2, 3, 5, 10, 50]
    alarms = sum(
        _gate(_distance(rng.standard_normal((20, axes))), rng)
        for axes in dimensions
        for _ in range(60)
    )
    assert alarms <= binom.ppf(0.999, 60 * len(dimensions), 0.05)


def test_gate_stays_shut_on_iid_outputs():
    # What IID clients send: one model, perturbed by each client's bias and by every sample.
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(60):
        logits = 3 * rng.standard_normal((1, 40, 10)) + 0.3 * rng.standard_normal((20, 1, 10))
        weights = np.exp(logits + 0.15 * rng.standard_normal((20, 40, 10)))
        alarms += _gate(np.sqrt(js_divergence(weights)[0]), rng)
        alarms += _gate(np.sqrt(js_divergence(rng.dirichlet(np.ones(10), (20, 40)))[0]), rng)
    # 1 of 600 in a larger run, so at most .8 % with 95 % confidence.
    assert alarms <= binom.ppf(0.99, 120, 0.01)


def test_gate_opens_for_groups():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        assert _gate(_distance(_groups(rng, 4, 5, spread=0.3, dimensions=5)), rng)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 25))
def test_client_ids_do_not_matter(seed, clients):
    rng = np.random.default_rng(seed)
    distance = _distance(rng.standard_normal((clients, 4)))
    order = rng.permutation(clients)
    result = RECOMMENDED.test(distance, np.random.default_rng(7))
    permuted = RECOMMENDED.test(distance[np.ix_(order, order)], np.random.default_rng(7))
    assert permuted == result


def test_client_ids_do_not_matter_in_exact_groups():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    distance = (labels[:, None] != labels).astype(float)
    order = np.random.default_rng(0).permutation(12)
    result = RECOMMENDED.test(distance, np.random.default_rng(7))
    permuted = RECOMMENDED.test(distance[np.ix_(order, order)], np.random.default_rng(7))
    assert permuted == result
    assert result.value > 0.99
    assert result.p_value == 0.01


def test_rounding_units_and_global_state_do_not_matter():
    rng = np.random.default_rng(3)
    distance = _distance(rng.standard_normal((20, 4)))
    noise = 1 + 1e-13 * rng.standard_normal(distance.shape)
    value = RECOMMENDED.test(distance, np.random.default_rng(7)).value
    for other in (distance * np.sqrt(noise * noise.T), distance * 1e-120, distance * 1e120):
        np.random.seed(0)  # noqa: NPY002
        assert RECOMMENDED.test(other, np.random.default_rng(7)).value == pytest.approx(value)


def test_mds_restores_distances_and_orders_axes():
    points = np.random.default_rng(0).standard_normal((9, 3)) * [1, 10, 0.1]
    restored = classical_mds(_distance(points), 5)
    assert restored.shape == (9, 3)  # the other axes are flat
    np.testing.assert_allclose(_distance(restored), _distance(points), atol=1e-6)
    np.testing.assert_allclose(restored.mean(axis=0), 0, atol=1e-12)
    assert (np.diff(restored.std(axis=0)) < 0).all()
    np.testing.assert_allclose(np.abs(classical_mds(_distance(points), 1)), np.abs(restored[:, :1]))


@pytest.mark.parametrize("seed", range(5))
def test_mds_settles_the_signs_of_axes(seed):
    restored = classical_mds(_distance(np.random.default_rng(seed).standard_normal((9, 3))), 3)
    assert (restored.max(axis=0) == np.abs(restored).max(axis=0)).all()


def test_mds_of_many_clients_computes_the_same_axes(monkeypatch):
    distance = _distance(np.random.default_rng(9).standard_normal((60, 5)) * [5, 4, 3, 2, 1])
    all_axes = classical_mds(distance, 3)
    monkeypatch.setattr(hopkins, "_ALL_AXES", 10)
    np.testing.assert_allclose(classical_mds(distance, 3), all_axes, atol=1e-12)
    assert classical_mds(distance, 100).shape == (60, 5)


def test_mds_drops_imaginary_axes():
    # A metric that no Euclidean points have: a star whose three tips are 2 apart, hub at 1.
    # Squares: tips 4, hub 1. Around its mean the star has two real axes of square 2 and an
    # imaginary one: B_hub = -(0 - .75 - .75 + 1.875) / 2 = -.1875.
    star = np.array([[0, 1, 1, 1], [1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0]], dtype=float)
    points = classical_mds(star, 3)
    assert points.shape == (4, 2)
    np.testing.assert_allclose((points**2).sum(axis=0), [2, 2])


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("dimensions", 0, "at least 1"),
        ("repetitions", 0, "at least 1"),
        ("reference_draws", 0, "at least 1"),
        ("sample_share", 0.0, r"\(0, 1\]"),
        ("sample_share", 1.5, r"\(0, 1\]"),
    ],
)
def test_settings_are_checked(field, value, legal):
    good = {"dimensions": 3, "sample_share": 0.25, "repetitions": 20, "reference_draws": 99}
    with pytest.raises(ValueError, match=rf"{field} must .*{legal}.* got {value}"):
        Hopkins(**(good | {field: value}))


def test_distances_are_checked():
    with pytest.raises(ValueError, match="finite"):
        RECOMMENDED.test(np.full((5, 5), np.nan), np.random.default_rng(0))
