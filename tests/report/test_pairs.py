from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedtsd.errors import RunFolderError
from fedtsd.report.pairs import holm, paired_tests, printed_tests, smallest_p
from tests.report.small import small


def test_six_wins_by_hand() -> None:
    # Differences .01 to .06: all signed ranks positive, so p = 2 / 2^6.
    results = small(
        {
            "fedavg": {"mild": [0.5, 0.5, 0.5], "harsh": [0.5, 0.5, 0.5]},
            "fedtsdp": {"mild": [0.51, 0.52, 0.53], "harsh": [0.54, 0.55, 0.56]},
        }
    )
    (row,) = paired_tests(results, "fedtsdp").to_dict("records")
    assert (row["reference"], row["method"], row["pairs"]) == ("fedtsdp", "fedavg", 6)
    assert (row["wins"], row["ties"], row["losses"], row["effect"]) == (6, 0, 0, 1.0)
    assert row["mean_difference"] == pytest.approx(0.035)
    assert row["median_difference"] == pytest.approx(0.035)
    assert row["p"] == row["p_holm"] == pytest.approx(2 / 64)


def test_ties_zeros_and_missing_pairs_by_hand() -> None:
    # Differences +.01, +.01, -.02, 0 and one pair missing. Without the zero the ranks are 1.5, 1.5
    # and 3: W+ = W- = 3, effect 0, and every one of the 8 signs is at least as far out: p = 1.
    results = small(
        {"a": {"s": [0.51, 0.61, 0.28, 0.4, 0.9]}, "b": {"s": [0.5, 0.6, 0.3, 0.4, None]}}
    )
    (row,) = paired_tests(results, "a").to_dict("records")
    assert (row["pairs"], row["wins"], row["ties"], row["losses"]) == (4, 2, 1, 1)
    assert row["effect"] == 0.0
    assert row["p"] == 1.0
    assert row["mean_difference"] == pytest.approx(0.0)
    assert row["median_difference"] == pytest.approx(0.005)


def test_over_settings_each_counts_once() -> None:
    results = small(
        {
            "a": {"mild": [0.6, 0.8], "harsh": [0.5, None]},
            "b": {"mild": [0.5, 0.6], "harsh": [0.6, 0.1]},
        }
    )
    (row,) = paired_tests(results, "a", over="settings").to_dict("records")
    assert (row["pairs"], row["wins"], row["losses"]) == (2, 1, 1)
    assert row["mean_difference"] == pytest.approx((0.15 - 0.1) / 2)


def test_equal_methods_and_methods_without_a_pair() -> None:
    results = small({"a": {"s": [0.1 + 0.2, None]}, "b": {"s": [0.3]}, "c": {"s": [None, 0.7]}})
    tests = paired_tests(results, "a").set_index("method")
    assert tests.loc["b", ["ties", "p", "effect"]].tolist() == [1, 1.0, 0.0]
    assert tests.loc["c", "pairs"] == 0
    assert tests.loc["c", ["p", "p_holm", "mean_difference", "effect"]].isna().all()


def test_holm_by_hand() -> None:
    # Sorted .01, .03, .04 times 3, 2, 1; .04 may not fall below .06. The NaN is not counted.
    adjusted = holm(np.array([0.04, np.nan, 0.01, 0.03]))
    assert adjusted[[0, 2, 3]] == pytest.approx([0.06, 0.03, 0.06])
    assert np.isnan(adjusted[1])
    assert holm(np.array([0.7, 0.8])).tolist() == [1.0, 1.0]


def test_smallest_p_is_reached() -> None:
    assert [smallest_p(n) for n in (0, 1, 5, 6)] == [1.0, 1.0, 0.0625, 0.03125]
    for n in range(1, 9):
        assert stats.wilcoxon(np.arange(1, n + 1.0)).pvalue == smallest_p(n)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=7))
def test_small_samples_are_exact_with_ties_too(steps: list[int]) -> None:
    results = small({"a": {"s": [0.5 + d / 100 for d in steps]}, "b": {"s": [0.5] * len(steps)}})
    (row,) = paired_tests(results, "a").to_dict("records")
    moved = np.array([d for d in steps if d])
    ranks = stats.rankdata(np.abs(moved))
    sums = np.array([np.dot(signs, ranks) for signs in product([-1, 1], repeat=len(moved))])
    balance = float(np.sum(ranks * np.sign(moved)))
    assert row["p"] == pytest.approx(np.mean(np.abs(sums) >= abs(balance) - 1e-9))
    if len(moved):
        assert row["effect"] == pytest.approx(balance / ranks.sum())


def test_an_unknown_reference_is_named() -> None:
    results = small({"a": {"s": [0.5]}, "b": {"s": [0.5]}})
    with pytest.raises(RunFolderError, match="reference: must be one of a, b, got 'c'"):
        paired_tests(results, "c")


def test_printed_tests_mark_what_is_significant() -> None:
    levels = [0.5 + i / 100 for i in range(8)]
    results = small(
        {
            "local": {"s": [v - 0.1 - v / 50 for v in levels]},
            "fedavg": {"s": [v + (-1) ** i * 0.01 * (i + 1) for i, v in enumerate(levels)]},
            "fedtsdp": {"s": levels},
        }
    )
    table = printed_tests(results, paired_tests(results, "fedtsdp"))
    assert table.texts.index.tolist() == ["Local only", "FedAvg"]
    assert table.texts.loc["Local only", "Holm p"] == "0.016"  # 2 x 2 / 2^8
    assert table.marks["Holm p"].tolist() == ["best", ""]
    assert table.texts.loc["FedAvg", "won/tied/lost"] == "4/0/4"
    assert "Friedman's test of all methods over 8 cells" in table.caption
    assert set(table.groups) == {""}
