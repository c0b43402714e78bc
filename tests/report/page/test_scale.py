import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.report.page.scale import score_scale
from fedtsd.score import ACCURACY, MAE, SCORES


def test_ticks_are_at_numbers_people_count_in() -> None:
    scale = score_scale(ACCURACY, 0.62, 0.87, 6)
    assert " ".join(map(scale.label, scale.ticks)) == "60% 65% 70% 75% 80% 85% 90%"
    scale = score_scale(MAE, 3.1, 47.0, 5)
    assert [scale.label(tick) for tick in scale.ticks] == ["0", "10", "20", "30", "40", "50"]
    scale = score_scale(MAE, 0.012, 0.034, 4)
    assert [scale.label(tick) for tick in scale.ticks] == ["0.01", "0.02", "0.03", "0.04"]


def test_a_scale_never_blows_up_small_differences_and_ends_at_the_limit() -> None:
    scale = score_scale(ACCURACY, 0.991, 0.998, 6)
    assert scale.high == 1.0
    assert scale.high - scale.low >= 0.1
    assert (scale.place(scale.low), scale.place(scale.high)) == (0.0, 1.0)


@given(st.sampled_from(list(SCORES.values())), st.floats(0, 1), st.floats(0, 1), st.integers(2, 8))
def test_every_value_has_a_place(score, a: float, b: float, most: int) -> None:
    low, high = sorted((a, b))
    scale = score_scale(score, low, high, most)
    assert 2 <= len(scale.ticks) <= most + 1
    assert list(scale.ticks) == sorted(set(scale.ticks))
    assert -1e-6 <= scale.place(low) <= scale.place(high) <= 1 + 1e-6
    assert len({scale.label(tick) for tick in scale.ticks}) == len(scale.ticks)
    assert scale.low >= 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_one_value_is_enough(value: float) -> None:
    assert len(score_scale(MAE, value, value, 4).ticks) >= 2
