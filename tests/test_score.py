import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.score import ACCURACY, MAE, SCORES, Score, score_in, score_of, score_of_task

every_score = pytest.mark.parametrize("score", SCORES.values(), ids=list(SCORES))
VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=50)


def test_a_gain_is_positive_where_the_first_is_better() -> None:
    assert ACCURACY.gain(0.9, 0.8) == pytest.approx(0.1)
    assert MAE.gain(0.9, 0.8) == pytest.approx(-0.1)
    errors = pd.Series({"a": 3.0, "b": 1.0, "c": 2.0})
    assert MAE.merit(errors).idxmax() == "b"
    assert ACCURACY.merit(errors).idxmax() == "a"


@given(VALUES)
def test_merit_orders_from_worst_to_best_and_gains_are_its_differences(values: list[float]) -> None:
    for score in SCORES.values():
        merits = score.merit(np.array(values))
        assert score.gain(values[0], values[-1]) == pytest.approx(merits[0] - merits[-1])
        assert score.worst_tenth(values)[0] == values[int(np.argmin(merits))]


def test_the_worst_tenth_are_the_lowest_accuracies_and_the_largest_errors() -> None:
    values = [i / 100 for i in range(21)]
    assert ACCURACY.worst_tenth(values) == [0.0, 0.01, 0.02]  # of 21 clients 3: rounded up
    assert MAE.worst_tenth(values) == [0.2, 0.19, 0.18]
    assert MAE.worst_tenth([5.0]) == [5.0]


def test_columns_are_named_by_the_score() -> None:
    assert ACCURACY.columns == ("accuracy_mean", "accuracy_std", "accuracy_worst10")
    assert MAE.columns == ("mae_mean", "mae_std", "mae_worst10")


def test_accuracies_have_one_decimal_and_errors_three_digits() -> None:
    assert ACCURACY.text(0.81239) == "81.2%"
    shown = [MAE.text(value) for value in (0.041234, 0.4567, 3.14159, 45.67, 51234.5)]
    assert shown == ["0.0412", "0.457", "3.14", "45.7", "51234"]
    # One number of decimals for a group: that of its median.
    assert MAE.decimals_of([0.5, 45.0, 60.0, float("nan")]) == 1
    assert MAE.decimals_of([]) == MAE.decimals_of([0.0]) == 2


def test_differences_in_words() -> None:
    assert ACCURACY.difference(-0.0312) == "−3.1 points"
    assert ACCURACY.difference(0.0312) == "+3.1 points"
    assert MAE.difference(0.214) == "0.214 less error"
    assert MAE.difference(-0.214, 1) == "0.2 more error"


def test_words_say_the_unit_or_the_better_end() -> None:
    assert ACCURACY.axis("worst decile") == ACCURACY.heading("worst decile") == "worst decile (%)"
    assert MAE.heading("test MAE") == "test MAE (lower is better)"
    assert MAE.axis("test MAE") == "test MAE\n(lower is better)"


def test_what_is_just_worth_a_word_is_one_point_or_a_hundredth_of_the_error() -> None:
    assert ACCURACY.hundredth(0.5) == 0.01
    assert MAE.hundredth(40.0) == pytest.approx(0.4)


@every_score
def test_a_score_is_found_by_its_name_its_summary_and_its_tables(score: Score) -> None:
    assert score_of(score.name) is score_of({"metric": score.name}) is score
    assert score_in(["round", score.mean, "loss_mean"]) is score
    assert score_in(["client", score.name, "loss"]) is score


def test_what_says_nothing_is_older_than_regression() -> None:
    assert score_of({}) is score_in(["round"]) is score_of_task(False) is ACCURACY
    assert score_of_task(True) is MAE
    with pytest.raises(ValueError, match="metric: must be one of accuracy, mae, got 'r2'"):
        score_of({"metric": "r2"})
