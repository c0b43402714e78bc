import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedtsd.report.ranks import cells, cliques, critical_difference, friedman, mean_ranks
from tests.report.small import small

# Demsar (2006), table 6: ranks of C4.5 without and with two parameters tuned, on 14 data sets.
DEMSAR = {
    "c45": [4, 1, 4, 4, 4, 1, 3, 2.5, 4, 2.5, 4, 3, 4, 3],
    "c45_m": [3, 2, 1, 1, 2, 2.5, 2, 2.5, 3, 2.5, 2.5, 2, 1, 1],
    "c45_cf": [2, 3, 2, 3, 3, 4, 4, 4, 2, 2.5, 1, 4, 2, 4],
    "c45_both": [1, 4, 3, 2, 1, 2.5, 1, 1, 1, 2.5, 2.5, 1, 3, 2],
}


def test_the_worked_example_of_demsar() -> None:
    test = friedman(
        small({name: {"sets": [1 - r / 10 for r in ranks]} for name, ranks in DEMSAR.items()})
    )
    assert test is not None
    assert test.ranks.round(3).to_dict() == {
        "c45_both": 1.964, "c45_m": 2.000, "c45_cf": 2.893, "c45": 3.143,
    }  # fmt: skip
    assert test.blocks == 14
    assert test.critical_difference == pytest.approx(1.25, abs=0.005)
    assert test.significant
    # His chi-square 9.28 and F 3.69 leave ties uncorrected; the correction makes both larger.
    reference = stats.friedmanchisquare(*DEMSAR.values())
    assert test.chi_square == pytest.approx(reference.statistic)
    assert test.chi_square > 9.28
    assert test.f == pytest.approx(13 * test.chi_square / (14 * 3 - test.chi_square))
    assert test.p == pytest.approx(stats.f.sf(test.f, 3, 39))


@pytest.mark.parametrize(
    ("methods", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)],
)
def test_critical_values_are_those_of_demsars_table_5(methods: int, q: float) -> None:
    difference = critical_difference(methods, blocks=7)
    assert difference == pytest.approx(q * (methods * (methods + 1) / 42) ** 0.5, rel=2e-3)


def test_mean_ranks_by_hand() -> None:
    # Cell 0: a 1, b and c share 2.5. Cell 1: b 1, a 2, c 3. Cell 2 lacks c and does not count.
    results = small(
        {"a": {"s": [0.9, 0.8, 0.1]}, "b": {"s": [0.5, 0.9, 0.9]}, "c": {"s": [0.5, 0.1]}}
    )
    assert mean_ranks(cells(results)).to_dict() == {"a": 1.5, "b": 1.75, "c": 2.75}


def test_noise_of_floats_is_no_difference() -> None:
    results = small({"a": {"s": [0.1 + 0.2]}, "b": {"s": [0.3]}})
    assert mean_ranks(cells(results)).to_dict() == {"a": 1.5, "b": 1.5}


def test_cells_are_ordered_by_severity_and_seed() -> None:
    results = small({"a": {"mild": [0.1, 0.2], "harsh": [0.3, None, 0.4]}, "b": {"mild": [0.5]}})
    table = cells(results)
    assert list(table.index) == [("mild", 0), ("mild", 1), ("harsh", 0), ("harsh", 2)]
    assert table["a"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert table["b"].notna().tolist() == [True, False, False, False]


def test_few_methods_or_blocks_give_no_test() -> None:
    enough = {name: {"s": [0.1 * i for i in range(6)]} for name in "abc"}
    assert friedman(small(enough)) is not None
    assert friedman(small({name: enough[name] for name in "ab"})) is None
    short = {**enough, "c": {"s": [0.1] * 5}}
    assert friedman(small(short)) is None


def test_a_perfect_order_and_a_perfect_tie() -> None:
    order = friedman(small({name: {"s": [i / 10] * 6} for i, name in enumerate("abc")}))
    assert order is not None
    assert order.ranks.to_dict() == {"c": 1, "b": 2, "a": 3}
    assert (order.f, order.p) == (np.inf, 0.0)
    tie = friedman(small({name: {"s": [0.5] * 6} for name in "abc"}))
    assert tie is not None
    assert (tie.chi_square, tie.f, tie.p) == (0.0, 0.0, 1.0)
    assert tie.cliques == (("a", "b", "c"),)


def test_cliques_by_hand() -> None:
    ranks = pd.Series({"a": 1.0, "b": 1.5, "c": 2.4, "d": 3.5, "e": 5.0})
    assert cliques(ranks, 1.0) == (("a", "b"), ("b", "c"))  # a difference of exactly 1 would differ
    assert cliques(ranks, 1.4) == (("a", "b"), ("b", "c"), ("c", "d"))
    assert cliques(ranks, 1.5) == (("a", "b", "c"), ("c", "d"))
    assert cliques(ranks, 0.5) == ()
    assert cliques(ranks, 9.0) == (("a", "b", "c", "d", "e"),)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=9), st.floats(0.1, 15))
def test_cliques_join_exactly_the_pairs_that_are_close(
    places: list[int], difference: float
) -> None:
    ranks = pd.Series({f"m{i}": float(place) for i, place in enumerate(sorted(places))})
    found = cliques(ranks, difference)
    together = {(a, b) for clique in found for a in clique for b in clique if a < b}
    close = {(a, b) for a in ranks.index for b in ranks.index if a < b}
    assert together == {(a, b) for a, b in close if ranks[b] - ranks[a] < difference}
    assert not any(set(p) < set(q) for p in found for q in found)
