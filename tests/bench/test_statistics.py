import pytest

from fedtsd.bench.statistics import Spread, ratios


def test_a_rate_is_compared_with_the_two_references_around_it() -> None:
    # Between 100 and 300 the machine gave 200, between 300 and 100 again; 400 / 200 and 100 / 200.
    assert ratios([400, 100], [100, 300, 100]) == [2.0, 0.5]


def test_steady_drift_cancels() -> None:
    # A machine that gets slower by 10 with each measurement: central, engine, central, ...
    central, engine = [100.0, 80.0, 60.0, 40.0], [180.0, 140.0, 100.0]
    assert ratios(engine, central) == pytest.approx([2.0, 2.0, 2.0])


def test_every_rate_needs_a_reference_on_either_side() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 1.0], [1.0, 1.0])


def test_a_spread_is_median_lowest_and_highest() -> None:
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)
    assert Spread.of([1.0, 2.0]).plain() == {"median": 1.5, "min": 1.0, "max": 2.0}
