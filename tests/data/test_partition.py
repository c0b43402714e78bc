import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.data.dataset import Facts
from fedtsd.data.partition import (
    BySite,
    Dirichlet,
    Iid,
    LabelGroups,
    Pathological,
    Pool,
    Shards,
)
from fedtsd.data.sizes import Equal, Lognormal, PowerLaw
from tests.data.levels import RISING, at, files, label_js, with_knob

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))
POOL = Pool(LABELS, 10)
FACTS = Facts(1000, (1, 8, 8), tuple("0123456789"))
SITES = Facts(30, (2,), ("a", "b"), sites=("Kobe", "Nara", "Otsu"), site_sizes=(12, 5, 13))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def counts(parts, labels: np.ndarray = LABELS) -> np.ndarray:
    return np.stack([np.bincount(labels[part], minlength=10) for part in parts])


def same(parts, others) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(parts, others, strict=True))


clients = st.integers(1, 30)
each = st.sampled_from([None, 5, 30])
sizes = st.sampled_from([None, Equal(), Lognormal(0.5), Lognormal(3.0), PowerLaw(1.5)])
partitions = st.one_of(
    st.builds(Iid, clients, st.just(5), each, sizes),
    st.builds(
        Dirichlet,
        clients,
        st.just(5),
        each,
        sizes,
        st.sampled_from([1e-4, 0.01, 0.1, 1.0, 100.0, float("inf")]),
    ),
    st.builds(
        Pathological, clients, st.just(5), each, sizes, st.one_of(st.none(), st.integers(1, 10))
    ),
    st.builds(Shards, clients, st.just(5), each, sizes, st.one_of(st.none(), st.integers(1, 5))),
    st.builds(
        LabelGroups,
        st.just(12),
        st.just(5),
        each,
        sizes,
        st.integers(1, 10),
        st.sampled_from([0.0, 0.3, 0.99, 1.0]),
    ),
)
SOME = [
    Iid(12, 5, None, None),
    Dirichlet(12, 5, None, None, 0.1),
    Pathological(12, 5, None, None, 2),
    Shards(12, 5, None, None, 2),
    LabelGroups(12, 5, None, None, 4, 0.0),
]


@settings(max_examples=250, deadline=None)
@given(partitions, st.integers(0, 1000))
def test_a_partition_is_a_partition(partition, seed) -> None:
    partition.check(FACTS, len(POOL))
    parts = partition.assign(POOL, rng(seed))
    together = np.concatenate(parts)
    assert len(parts) == partition.num_clients
    assert len(np.unique(together)) == len(together)  # nobody shares a sample
    assert all((np.diff(part) > 0).all() for part in parts)
    assert min(map(len, parts)) >= 5
    total = len(parts) * (partition.samples_per_client or 0) or 1000
    if isinstance(partition.sizes, Equal):
        assert len({len(part) for part in parts}) == 1 or isinstance(partition, LabelGroups)
        assert total - len(together) < len(parts)
    elif partition.sizes is not None:
        assert len(together) == total
    elif partition.samples_per_client is not None:
        assert {len(part) for part in parts} == {partition.samples_per_client}
    elif not isinstance(partition, Pathological):
        assert len(together) == 1000  # nothing is lost
    assert same(parts, partition.assign(POOL, rng(seed)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SOME[:4]), sizes.filter(bool), each, st.integers(0, 99))
def test_every_client_gets_the_size_drawn_for_it(partition, sizes, each, seed) -> None:
    sized = dataclasses.replace(partition, sizes=sizes, samples_per_client=each)
    drawn = sizes.draw(12, 1000 if each is None else 12 * each, 5, rng(seed))
    assert [len(part) for part in sized.assign(POOL, rng(seed))] == drawn.tolist()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=3, max_size=8).filter(lambda c: sum(c) >= 40),
    st.sampled_from([p for p in SOME if not isinstance(p, LabelGroups)]),
    sizes,
    st.integers(0, 99),
)
def test_few_and_uneven_classes_still_reach_everyone(of_class, partition, sizes, seed) -> None:
    labels = np.repeat(np.arange(len(of_class)), of_class)
    small = dataclasses.replace(partition, num_clients=8, sizes=sizes)
    parts = small.assign(Pool(labels, len(of_class)), rng(seed))
    assert min(map(len, parts)) >= 5
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))


def test_iid_sizes_differ_by_at_most_one() -> None:
    dealt = [len(part) for part in Iid(7, 5, None, None).assign(POOL, rng())]
    assert sorted(dealt) == [142, 143, 143, 143, 143, 143, 143]


@pytest.mark.parametrize("path", with_knob("partition"), ids=lambda path: path.stem)
def test_severity_iid_deals_exactly_as_iid(path: Path) -> None:
    for sizes, each in itertools.product((None, Lognormal(1.0)), (None, 30)):
        parts = at(path, "iid", sizes=None, samples_per_client=each)
        parts = dataclasses.replace(parts, sizes=sizes)
        assert same(parts.assign(POOL, rng(3)), Iid(20, 10, each, sizes).assign(POOL, rng(3)))
        assert parts.groups_of(20) is None


@pytest.mark.parametrize("path", with_knob("partition"), ids=lambda path: path.stem)
@pytest.mark.parametrize("sizes", [None, Lognormal(1.0)], ids=["even", "lognormal"])
def test_severity_grows_the_skew_of_labels(path: Path, sizes) -> None:
    labels = np.repeat(np.arange(10), 600)

    def skew(severity: str) -> float:
        partition = dataclasses.replace(at(path, severity), sizes=sizes)
        dealt = [partition.assign(Pool(labels, 10), rng(seed)) for seed in range(4)]
        return float(np.mean([label_js(counts(parts, labels)) for parts in dealt]))

    found = [skew(severity) for severity in RISING]
    assert all(a + 0.03 < b for a, b in itertools.pairwise(found)), found
    assert found[0] < 0.02
    assert found[1] <= skew("default") <= found[4]


def test_all_but_iid_and_by_site_have_a_knob() -> None:
    without = set(files("partition")) - set(with_knob("partition"))
    assert {path.stem for path in without} == {"iid", "by_site"}


def test_dirichlet_shares_follow_their_law() -> None:
    # The share of a class that one client owns is Beta(alpha, (N - 1) alpha):
    # mean 1/N = .1, variance (1/N)(1 - 1/N) / (N alpha + 1) = .09 / 6 = .015 for alpha .5.
    partition = Dirichlet(10, 2, None, None, 0.5)
    shares = np.stack([counts(partition.assign(POOL, rng(seed))) / 100 for seed in range(60)])
    assert shares.mean() == pytest.approx(0.1)
    assert shares.var() == pytest.approx(0.015, rel=0.1)


def test_dirichlet_laws_of_equal_clients_follow_theirs() -> None:
    # With few clients no class runs out: entries of a law have variance
    # (1/Y)(1 - 1/Y) / (Y alpha + 1) = .09 / 2 = .045 for alpha .1, counts add q (1 - q) / n.
    partition = Dirichlet(2, 2, 50, None, 0.1)
    laws = [counts(partition.assign(POOL, rng(seed))) / 50 for seed in range(300)]
    expected = 0.045 + (0.09 - 0.045) / 50
    assert np.stack(laws).var() == pytest.approx(expected, rel=0.08)


def test_dirichlet_laws_do_not_depend_on_sizes() -> None:
    # As above with alpha .5: .09 / 6 = .015, and the mean of 1/n over sizes adds (.09 - .015)/n.
    partition = Dirichlet(2, 2, 50, PowerLaw(1.0), 0.5)
    laws = []
    for seed in range(400):
        parts = partition.assign(POOL, rng(seed))
        assert sorted(map(len, parts)) == [33, 67]
        laws.append(counts(parts) / np.array([[len(part)] for part in parts]))
    expected = 0.015 + 0.075 * (1 / 33 + 1 / 67) / 2
    assert np.stack(laws).var() == pytest.approx(expected, rel=0.08)


def test_sizes_that_use_up_the_data_do_not_add_to_the_skew_of_labels() -> None:
    labels = np.repeat(np.arange(10), 600)

    def skew(sizes) -> float:
        dealt = [
            Dirichlet(20, 10, None, sizes, 1.0).assign(Pool(labels, 10), rng(seed))
            for seed in range(20)
        ]
        return float(np.mean([label_js(counts(parts, labels)) for parts in dealt]))

    assert skew(Equal()) == pytest.approx(skew(None), abs=0.015)


def test_small_alpha_concentrates_large_alpha_evens_out() -> None:
    skewed = counts(Dirichlet(20, 2, 40, None, 0.01).assign(POOL, rng()))
    even = counts(Dirichlet(20, 2, 40, None, 1000.0).assign(POOL, rng()))
    assert (skewed > 0).sum(axis=1).mean() < 3
    assert (even > 0).sum(axis=1).min() >= 8


def test_each_client_holds_its_number_of_classes() -> None:
    held = counts(Pathological(20, 5, None, None, 2).assign(POOL, rng())) > 0
    assert (held.sum(axis=1) == 2).all()
    assert (held.sum(axis=0) == 4).all()  # 40 places, 10 classes
    equal = counts(Pathological(20, 5, 50, None, 2).assign(POOL, rng()))
    assert np.array_equal(np.unique(equal), [0, 25])


def test_each_client_holds_its_number_of_classes_at_any_size() -> None:
    dealt = Pathological(20, 5, 20, Lognormal(1.0), 2).deal(POOL, rng())
    found = counts(dealt.parts)
    assert ((found > 0).sum(axis=1) == 2).all()
    assert dealt.moved == 0
    assert np.abs(found.max(axis=1) - found.sum(axis=1) / 2).max() < 1  # equal parts


def test_a_class_that_nobody_holds_is_used_before_clients_are_too_small() -> None:
    # One class of 100 for two clients who need 70 each: 40 come from classes nobody holds.
    dealt = Pathological(2, 70, None, None, 1).deal(Pool(np.repeat([0, 1, 2], 50), 3), rng())
    assert [len(part) for part in dealt.parts] == [70, 70]
    assert dealt.moved == 40


def test_shards_are_pieces_of_the_sorted_line() -> None:
    # McMahan's numbers, in small: 20 clients, 40 shards of 25, four to a class, none across.
    found = counts(Shards(20, 5, None, None, 2).assign(POOL, rng()))
    assert np.isin(found, [0, 25, 50]).all()
    assert found.sum(axis=1).tolist() == [50] * 20
    # A client's two shards are of one class with probability 3/39.
    one = [
        (counts(Shards(20, 5, None, None, 2).assign(POOL, rng(seed))) == 50).sum()
        for seed in range(150)
    ]
    assert np.mean(one) / 20 == pytest.approx(3 / 39, abs=0.012)


def test_a_shard_may_lie_across_a_border() -> None:
    found = counts(Shards(15, 5, None, None, 1).assign(POOL, rng()))
    held = (found > 0).sum(axis=1)
    assert held.max() == 2  # 67 samples of classes of 100
    assert set(found.sum(axis=1)) == {66, 67}


def test_without_sites_nothing_is_moved_where_the_rule_suffices() -> None:
    assert [partition.deal(POOL, rng()).moved for partition in SOME] == [0, 0, 0, 0, 0]
    assert Dirichlet(20, 30, None, None, 0.05).deal(POOL, rng()).moved > 0


BAD = [
    (lambda: Iid(0, 5, None, None), "num_clients: must be at least 1, got 0"),
    (lambda: Iid(2, 1, None, None), "min_size: must be at least 2"),
    (lambda: Iid(2, 5, 4, None), "samples_per_client: must be null or at least min_size"),
    (lambda: Dirichlet(2, 5, None, None, 0.0), "alpha: must be above 0, got 0"),
    (lambda: Dirichlet(2, 5, None, None, -1.0), "alpha: must be above 0, got -1"),
    (lambda: Pathological(2, 5, None, None, 0), "classes_per_client: must be null or at least 1"),
    (lambda: Pathological(2, 5, None, None, 11).check(FACTS, 1000), "at most the 10 classes"),
    (lambda: Shards(2, 5, None, None, 0), "shards_per_client: must be null or at least 1, got 0"),
    (lambda: Shards(2, 5, 6, None, 7).check(FACTS, 1000), "at most the 6 samples of a client"),
    (lambda: Shards(100, 5, None, None, 11).check(FACTS, 1000), "at most the 10 samples"),
    (lambda: LabelGroups(2, 5, None, None, 3, 0.0), r"num_groups: must be 1 to num_clients \(2\)"),
    (lambda: LabelGroups(12, 5, None, None, 11, 0.0).check(FACTS, 1000), "at most the 10 classes"),
    (lambda: LabelGroups(2, 5, None, None, 2, 1.5), r"overlap: must be in \[0, 1\], got 1.5"),
    (
        lambda: Iid(300, 5, None, None).check(FACTS, 1000),
        "300 clients with at least 5 samples each need 1500 samples, the data set has 1000",
    ),
    (lambda: Iid(30, 5, 50, None).check(FACTS, 1000), "need 1500 samples, the data set has 1000"),
    (lambda: BySite(1, "error", None), "min_size: must be at least 2"),
    (lambda: BySite(5, "drop", None), "small_sites: must be error or skip, got 'drop'"),
    (lambda: BySite(5, "error", Equal()), "sizes: must be null, as sites hold what they hold"),
    (lambda: BySite(5, "error", None).check(FACTS, 1000), "by_site: needs data that say whose"),
    (lambda: BySite(6, "error", None).check(SITES, 30), r"too small: Nara \(5\); lower it"),
    (lambda: BySite(50, "skip", None).check(SITES, 30), r"Kobe \(12\), Nara \(5\), Otsu \(13\)"),
    (lambda: BySite(5, "skip", None).resized(3), "num_clients: the sites of the data are the"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings_name_the_field(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("sizes", [None, Lognormal(1.0)], ids=["even", "lognormal"])
def test_ten_thousand_clients(sizes) -> None:
    labels = rng().integers(0, 10, 200_000)
    partition = Dirichlet(10_000, 10, None, sizes, 0.1)
    parts = partition.assign(Pool(labels, 10), rng())
    assert min(map(len, parts)) >= 10
    assert sum(map(len, parts)) == 200_000


def test_planted_groups_have_classes_of_their_own() -> None:
    for sizes in (None, Lognormal(1.0)):
        partition = LabelGroups(8, 5, None, sizes, 3, 0.0)
        held = counts(partition.assign(POOL, rng())) > 0
        assert partition.groups_of(8).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
        for i in range(8):
            for j in range(8):
                assert (held[i] & held[j]).any() == (i % 3 == j % 3)
        if sizes is None:
            assert sorted(held[:3].sum(axis=1)) == [3, 3, 4]  # ten classes over three groups
    assert Iid(7, 5, None, None).groups_of(7) is None


def test_clients_of_a_group_have_its_mix_of_classes_whatever_their_size() -> None:
    labels = np.repeat([0, 1], [900, 100])
    partition = LabelGroups(10, 20, None, PowerLaw(1.0), 1, 0.0)
    found = counts(partition.assign(Pool(labels, 2), rng()), labels)
    assert found[:, 1] / found.sum(axis=1) == pytest.approx(0.1, abs=0.07)


def test_groups_that_overlap_keep_their_sizes_and_share_that_much() -> None:
    alone = LabelGroups(10, 5, None, None, 5, 0.0).assign(POOL, rng())
    mixed = LabelGroups(10, 5, None, None, 5, 0.5).assign(POOL, rng())
    assert [len(part) for part in mixed] == [len(part) for part in alone] == [100] * 10
    kept = [len(np.intersect1d(a, b)) for a, b in zip(alone, mixed, strict=True)]
    # Half stay, and of the 50 drawn from the pot of 500, a tenth were its own.
    assert np.mean(kept) == pytest.approx(55, abs=3)
    own = np.take_along_axis(counts(mixed), np.argsort(-counts(alone))[:, :2], axis=1).sum(axis=1)
    assert own.mean() == pytest.approx(50 + 50 / 5, abs=4)


def test_more_clients_are_dealt_to_by_the_same_rule() -> None:
    for partition in SOME:
        assert len(partition.resized(15).assign(POOL, rng())) == 15
        assert partition.resized(12) == partition
