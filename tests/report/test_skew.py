from dataclasses import replace
from math import isnan, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.report.skew import run_skew, summary_skew, with_skew
from fedtsd.report.tables import RunTables
from fedtsd.skew import Skew, counts_skew, gini, mean_skew

NBSP = "\N{NO-BREAK SPACE}"


def test_two_clients_with_nothing_in_common() -> None:
    skew = counts_skew(np.array([[6, 0], [0, 2]]))
    # Pooled law (3/4, 1/4); JS of (1, 0) and of (0, 1) to it, by hand.
    first = 0.5 * log2(1 / 0.875) + 0.5 * (0.75 * log2(0.75 / 0.875) + 0.25 * log2(0.25 / 0.125))
    second = 0.5 * log2(1 / 0.625) + 0.5 * (0.75 * log2(0.75 / 0.375) + 0.25 * log2(0.25 / 0.625))
    assert skew.label_js == pytest.approx((first + second) / 2)
    assert skew.label_emd == pytest.approx((0.5 + 1.5) / 2)
    assert skew.size_gini == pytest.approx(0.25)
    assert (skew.size_min, skew.size_max) == (2, 6)
    assert (skew.classes_min, skew.classes_mean, skew.classes_max) == (1, 1, 1)
    assert isnan(skew.input_shift)


def test_clients_alike_have_no_skew_and_empty_ones_do_not_count() -> None:
    skew = counts_skew(np.array([[3, 1], [3, 1], [0, 0]]))
    assert (skew.label_js, skew.label_emd, skew.size_gini) == (0, 0, 0)
    assert isnan(counts_skew(np.zeros((2, 3))).label_js)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_gini_is_half_the_mean_difference_over_the_mean(sizes: list[int]) -> None:
    values = np.array(sizes, dtype=float)
    differences = np.abs(values[:, None] - values).mean()
    assert gini(values) == pytest.approx(differences / 2 / values.mean(), abs=1e-12)


def test_a_summary_is_believed_and_an_old_one_is_measured_again(
    tables: dict[str, RunTables],
) -> None:
    run = tables["typical"]
    told = {"skew": {"label_js": 0.5, "input_shift": None, "something_new": 3}}
    assert summary_skew(told) == Skew(label_js=0.5)
    assert run_skew(replace(run, summary=told)).label_js == 0.5
    assert summary_skew({"label_skew": 0.3}) is None
    assert run_skew(run) == counts_skew(run.train_counts)


def test_the_name_of_a_setting_with_what_says_something() -> None:
    skew = Skew(label_js=0.361, size_gini=0.4, input_shift=0.82, label_shift=0.001)
    plain = {"partition": {"sizes": None}}
    assert (
        with_skew("α = 0.1", plain, skew) == f"α = 0.1 (JS{NBSP}0.36, input{NBSP}shift{NBSP}0.82)"
    )
    sized = {"partition": {"sizes": {"_target_": "a.Lognormal"}}}
    only = replace(skew, input_shift=0.0)
    assert with_skew("s", sized, only) == f"s (JS{NBSP}0.36, Gini{NBSP}0.40)"
    assert with_skew("s", {}, Skew()) == "s"
    assert with_skew("", {}, skew) == ""


def test_means_are_over_the_runs_that_know_a_measure() -> None:
    mean = mean_skew([Skew(label_js=0.2, size_min=4), Skew(label_js=0.4)])
    assert mean.label_js == pytest.approx(0.3)
    assert mean.size_min == 4
    assert isnan(mean.label_shift)
