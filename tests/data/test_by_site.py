import numpy as np
import pytest

from fedtsd.data.dataset import Facts
from fedtsd.data.partition import BySite, Pool
from fedtsd.errors import DataError

SITES = Facts(30, (2,), ("a", "b"), sites=("Kobe", "Nara", "Otsu"), site_sizes=(12, 5, 13))
POOL = Pool(np.zeros(30, dtype=np.int64), 2)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_each_site_is_a_client_with_its_own_samples() -> None:
    sites = rng().permutation(np.repeat([0, 1, 2], SITES.site_sizes))
    pool = Pool(np.zeros(30, dtype=np.int64), 2, sites)
    parts = BySite(5, "error", None).assign(pool, rng())
    assert [sites[part].tolist() for part in parts] == [[0] * 12, [1] * 5, [2] * 13]
    skipping = BySite(6, "skip", None)
    skipping.check(SITES, 30)
    assert skipping.kept(SITES) == (0, 2)
    assert skipping.clients_of(SITES) == 2
    assert skipping.names_of(SITES) == ("Kobe", "Otsu")
    assert skipping.notes_of(SITES) == ("skipped, as they have fewer than 6 samples: Nara (5)",)
    assert [sites[part][0] for part in skipping.assign(pool, rng())] == [0, 2]
    assert BySite(5, "skip", None).notes_of(SITES) == ()


def test_a_site_stays_a_client_when_public_samples_are_taken_from_it() -> None:
    left = Pool(np.zeros(15, dtype=np.int64), 2, np.repeat([0, 1, 2], 5), SITES.site_sizes)
    assert len(BySite(6, "skip", None).assign(left, rng())) == 2


def test_many_small_sites_are_named_in_part() -> None:
    names = tuple(f"s{i}" for i in range(9))
    facts = Facts(18, (2,), ("a",), sites=names, site_sizes=(2,) * 8 + (9,))
    with pytest.raises(ValueError, match=r"s0 \(2\), .*s4 \(2\) and 3 more; lower it"):
        BySite(3, "error", None).check(facts, 18)


def test_sites_are_needed_to_deal_by_site() -> None:
    with pytest.raises(DataError, match="partition=by_site needs data that say whose"):
        BySite(5, "error", None).assign(POOL, rng())
