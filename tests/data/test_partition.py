import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.data.partition import Dirichlet, Iid, LabelGroups, Pathological, draw_laws, repair

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def counts(parts) -> np.ndarray:
    return np.stack([np.bincount(LABELS[part], minlength=10) for part in parts])


partitions = st.one_of(
    st.builds(Iid, st.integers(1, 30), st.just(5), st.sampled_from([None, 5, 30])),
    st.builds(
        Dirichlet,
        st.integers(1, 30),
        st.just(5),
        st.sampled_from([None, 5, 30]),
        st.sampled_from([1e-4, 0.01, 0.1, 1.0, 100.0]),
    ),
    st.builds(
        Pathological,
        st.integers(1, 30),
        st.just(5),
        st.sampled_from([None, 5, 30]),
        st.integers(1, 10),
    ),
    st.builds(LabelGroups, st.just(12), st.just(5), st.sampled_from([None, 5]), st.integers(1, 10)),
)


@settings(max_examples=150, deadline=None)
@given(partitions, st.integers(0, 1000))
def test_a_partition_is_a_partition(partition, seed) -> None:
    parts = partition.assign(LABELS, 10, rng(seed))
    together = np.concatenate(parts)
    assert len(parts) == partition.num_clients
    assert len(np.unique(together)) == len(together)  # nobody shares a sample
    assert min(map(len, parts)) >= 5
    if partition.samples_per_client is not None:
        assert {len(part) for part in parts} == {partition.samples_per_client}
    elif not isinstance(partition, Pathological | LabelGroups):
        assert len(together) == 1000  # nothing is lost
    again = partition.assign(LABELS, 10, rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = [len(part) for part in Iid(7, 5, None).assign(LABELS, 10, rng())]
    assert max(sizes) - min(sizes) <= 1


def test_dirichlet_shares_follow_their_law() -> None:
    # The share of a class that one client owns is Beta(alpha, (N - 1) alpha):
    # mean 1/N = .1, variance (1/N)(1 - 1/N) / (N alpha + 1) = .09 / 6 = .015 for alpha .5.
    draws = [
        counts(Dirichlet(10, 2, None, 0.5).assign(LABELS, 10, rng(seed))) / 100
        for seed in range(60)
    ]
    shares = np.stack(draws)
    assert shares.mean() == pytest.approx(0.1)
    assert shares.var() == pytest.approx(0.015, rel=0.1)


def test_dirichlet_laws_of_equal_clients_follow_theirs() -> None:
    # With few clients no class runs out: entries of a law have variance
    # (1/Y)(1 - 1/Y) / (Y alpha + 1) = .09 / 2 = .045 for alpha .1, counts add q (1 - q) / n.
    laws = [
        counts(Dirichlet(2, 2, 50, 0.1).assign(LABELS, 10, rng(seed))) / 50 for seed in range(300)
    ]
    expected = 0.045 + (0.09 - 0.045) / 50
    assert np.stack(laws).var() == pytest.approx(expected, rel=0.08)


def test_small_alpha_concentrates_large_alpha_evens_out() -> None:
    skewed = counts(Dirichlet(20, 2, 40, 0.01).assign(LABELS, 10, rng()))
    even = counts(Dirichlet(20, 2, 40, 1000.0).assign(LABELS, 10, rng()))
    assert (skewed > 0).sum(axis=1).mean() < 3
    assert (even > 0).sum(axis=1).min() >= 8


def test_each_client_holds_its_number_of_classes() -> None:
    held = counts(Pathological(20, 5, None, 2).assign(LABELS, 10, rng())) > 0
    assert (held.sum(axis=1) == 2).all()
    assert (held.sum(axis=0) == 4).all()  # 40 places, 10 classes
    equal = counts(Pathological(20, 5, 50, 2).assign(LABELS, 10, rng()))
    assert np.array_equal(np.unique(equal), [0, 25])


def test_repair_takes_from_the_richest() -> None:
    parts = repair([np.arange(1), np.arange(1, 30), np.arange(30, 40)], 5, rng())
    assert [len(part) for part in parts] == [5, 25, 10]
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))


def test_a_class_that_runs_out_is_left_out() -> None:
    pools = [np.arange(3), np.arange(3, 100)]
    laws = np.array([[1.0, 0.0], [1.0, 0.0]])
    parts = draw_laws(pools, laws, 10, rng())
    assert sorted(len(part) for part in parts) == [10, 10]
    assert set(range(3)) <= set(np.concatenate(parts).tolist())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Iid(0, 5, None), "num_clients: must be at least 1, got 0"),
        (lambda: Iid(2, 1, None), "min_size: must be at least 2"),
        (lambda: Iid(2, 5, 4), "samples_per_client: must be null or at least min_size"),
        (lambda: Dirichlet(2, 5, None, 0.0), "alpha: must be above 0, got 0"),
        (lambda: Dirichlet(2, 5, None, -1.0), "alpha: must be above 0, got -1"),
        (lambda: Pathological(2, 5, None, 0), "classes_per_client: must be at least 1"),
        (lambda: Pathological(2, 5, None, 11).check(1000, 10), "at most the 10 classes"),
        (lambda: Iid(300, 5, None).check(1000, 10), "300 clients with at least 5 samples each"),
        (lambda: Iid(30, 5, 50).check(1000, 10), "need 1500 samples, the data set has 1000"),
    ],
)
def test_bad_settings_name_the_field(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_ten_thousand_clients() -> None:
    labels = rng().integers(0, 10, 200_000)
    partition = dataclasses.replace(Dirichlet(10_000, 10, None, 0.1))
    assert min(map(len, partition.assign(labels, 10, rng()))) >= 10


def test_planted_groups_have_classes_of_their_own() -> None:
    partition = LabelGroups(8, 5, None, 3)
    held = counts(partition.assign(LABELS, 10, rng())) > 0
    assert partition.groups.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    for i in range(8):
        for j in range(8):
            assert (held[i] & held[j]).any() == (i % 3 == j % 3)
    assert sorted(held[:3].sum(axis=1)) == [3, 3, 4]  # ten classes over three groups
    assert Iid(7, 5, None).groups is None
