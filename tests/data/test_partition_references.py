"""Our partitions against those of Flower Datasets, where it is installed: the same statistics.

Draws differ, laws must not. To run it: pip install flwr-datasets.
"""

from collections.abc import Callable

import numpy as np
import pytest

from fedtsd.data.partition import BySite, Dirichlet, Pathological, Pool, Shards
from tests.data.levels import gini, label_js

flower = pytest.importorskip("flwr_datasets.partitioner", reason="needs flwr-datasets")

CLASSES = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 300))
SEEDS = range(25)
Statistics = dict[str, tuple[float, float]]


def parts_of(partitioner) -> list[np.ndarray]:
    """Deal the labels by a partitioner of Flower; the column `row` says which samples they are."""
    from datasets import Dataset

    partitioner.dataset = Dataset.from_dict({"label": CLASSES, "row": np.arange(len(CLASSES))})
    loaded = [partitioner.load_partition(i) for i in range(partitioner.num_partitions)]
    return [np.asarray(part["row"]) for part in loaded]


def statistics(deal: Callable[[int], list[np.ndarray]]) -> Statistics:
    """Mean over seeds, and its standard error, of what partitions differ in."""
    rows = []
    for seed in SEEDS:
        counts = np.stack([np.bincount(CLASSES[part], minlength=10) for part in deal(seed)])
        # Flower rounds down, so that its last client has one sample of each class at least.
        held = (counts > 0.01 * counts.sum(axis=1, keepdims=True)).sum(axis=1)
        top = (counts.max(axis=1) / counts.sum(axis=1)).mean()
        rows.append([label_js(counts), held.mean(), top, gini(counts.sum(axis=1))])
    table = np.array(rows)
    error = table.std(axis=0, ddof=1) / np.sqrt(len(table))
    names = ("label_js", "classes held", "share of the largest class", "size_gini")
    return {n: (m, e) for n, m, e in zip(names, table.mean(axis=0), error, strict=True)}


def ours(partition) -> Statistics:
    pool = Pool(CLASSES, 10)
    return statistics(lambda seed: partition.assign(pool, np.random.default_rng(seed)))


def apart(found: Statistics, expected: Statistics, tolerance: float = 0.005) -> list[str]:
    """What differs by more than four standard errors and a small tolerance."""
    differing = []
    for name, (mean, error) in found.items():
        other, other_error = expected[name]
        if abs(mean - other) > 4 * np.hypot(error, other_error) + tolerance:
            differing.append(f"{name}: {mean} ± {error}, reference {other} ± {other_error}")
    return differing


@pytest.mark.filterwarnings("ignore:The specified min_partition_size")
@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 100.0])
def test_dirichlet_is_that_of_flower(alpha: float) -> None:
    def reference(seed: int) -> list[np.ndarray]:
        return parts_of(flower.DirichletPartitioner(20, "label", alpha, 2, False, seed=seed))

    assert not apart(ours(Dirichlet(20, 2, None, None, alpha)), statistics(reference))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_pathological_is_that_of_flower(count: int) -> None:
    # Its mode "deterministic" gives every class the same number of holders, as ours does.
    def reference(seed: int) -> list[np.ndarray]:
        return parts_of(
            flower.PathologicalPartitioner(20, "label", count, "deterministic", seed=seed)
        )

    assert not apart(ours(Pathological(20, 2, None, None, count)), statistics(reference))


@pytest.mark.filterwarnings("ignore:Specifying null_placement")  # Arrow's own
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_are_those_of_flower(count: int) -> None:
    def reference(seed: int) -> list[np.ndarray]:
        return parts_of(flower.ShardPartitioner(20, "label", count, seed=seed))

    assert not apart(ours(Shards(20, 2, None, None, count)), statistics(reference))


def test_sites_are_those_of_flower() -> None:
    from datasets import Dataset

    sites = np.random.default_rng(1).choice(5, 200, p=[0.1, 0.2, 0.4, 0.2, 0.1])
    partitioner = flower.NaturalIdPartitioner("site")
    partitioner.dataset = Dataset.from_dict({"site": sites, "row": np.arange(200)})
    expected = {}
    for i in range(partitioner.num_partitions):
        rows = np.asarray(partitioner.load_partition(i)["row"])
        expected[int(sites[rows[0]])] = rows.tolist()
    pool = Pool(np.zeros(200, dtype=np.int64), 1, sites)
    found = BySite(2, "error", None).assign(pool, np.random.default_rng(0))
    assert {site: part.tolist() for site, part in enumerate(found)} == expected
