import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtsd.data.targets import (
    alike,
    few,
    guessed_task,
    in_order,
    named_numbers,
    number_text,
    range_names,
    regression,
)


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1, 1], "classification"),
        (list(range(20)), "classification"),
        (list(range(21)), "regression"),
        ([0, 1, 1.5], "regression"),
    ],
)
def test_few_whole_numbers_are_guessed_to_be_classes(values: list[float], task: str) -> None:
    assert guessed_task(np.array(values, np.float64)) == task


def test_numbers_become_classes_in_order_of_size() -> None:
    target = named_numbers(np.array([10.0, -1.0, 2.0, 10.0]))
    assert target.classes == ("-1", "2", "10")
    assert target.labels.tolist() == [2, 0, 1, 2]


def test_a_frequent_value_at_either_end_is_a_stratum_of_its_own() -> None:
    low = regression(np.array([0.0] * 95 + [1, 2, 3, 4, 5]), 10)
    assert low.classes == ("0", "1 to 5")
    assert np.bincount(low.labels).tolist() == [95, 5]
    high = regression(np.array([9.0] * 95 + [1, 2, 3, 4, 5]), 10)
    assert high.classes == ("1 to 5", "9")
    assert np.bincount(high.labels).tolist() == [5, 95]


@given(
    values=arrays(np.float64, st.integers(2, 60), elements=st.floats(-1e6, 1e6, width=32)),
    count=st.integers(2, 12),
)
def test_strata_are_ordered_disjoint_intervals_with_names_of_their_own(
    values: np.ndarray, count: int
) -> None:
    target = regression(values, count)
    num = len(target.classes)
    assert num == len(set(target.classes)) <= count
    assert np.array_equal(np.unique(target.labels), np.arange(num))
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(target.labels[order]) >= 0)
    for value in np.unique(values):
        assert len(np.unique(target.labels[values == value])) == 1
    assert num >= 2 or len(np.unique(values)) == 1
    assert target.values is not None
    assert np.array_equal(target.values, values.astype(np.float32))


def test_distinct_values_fill_strata_evenly() -> None:
    target = regression(np.random.default_rng(0).normal(size=1000), 10)
    assert np.bincount(target.labels).tolist() == [100] * 10


def test_names_of_ranges_take_the_digits_that_they_need() -> None:
    assert range_names([(0.12345, 0.5), (0.6, 2.0)]) == ("0.123 to 0.5", "0.6 to 2")
    assert range_names([(1.00001, 1.00001), (1.00002, 1.00002)]) == ("1.00001", "1.00002")


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (-0.5, "-0.5"), (0.1, "0.1"), (1e20, "1e+20"), (-0.0, "0")]
)
def test_numbers_are_written_as_people_do(value: float, text: str) -> None:
    assert number_text(value) == text


def test_numbers_in_texts_are_sorted_by_size() -> None:
    assert in_order(["10", "-3", "2"]) == ["-3", "2", "10"]
    assert in_order(["site10", "b", "site2", "7"]) == ["7", "b", "site2", "site10"]


def test_names_are_alike_if_only_case_or_blanks_differ() -> None:
    assert alike(["Rome", "Bonn", "rome "]) == ("Rome", "rome ")
    assert alike(["Rome", "Rom", "Rome"]) is None


def test_long_lists_are_cut_and_counted() -> None:
    assert few(["a", "b"], 2) == "a, b"
    assert few(["a", "b", "c"], 1, "; ") == "a and 2 more"
