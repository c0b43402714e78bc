import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.data.sizes import Equal, Lognormal, PowerLaw, apportion, draw_within
from tests.data.levels import RISING, at, files, gini, with_knob


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


ANY = [Lognormal(0.0), Lognormal(1.0), Lognormal(8.0), PowerLaw(0.0), PowerLaw(1.0), PowerLaw(9.0)]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ANY),
    st.integers(1, 60),
    st.integers(2, 12),
    st.integers(0, 5000),
    st.integers(0, 99),
)
def test_sizes_sum_to_the_total_and_nobody_has_too_few(sizes, clients, least, more, seed) -> None:
    total = clients * least + more
    drawn = sizes.draw(clients, total, least, rng(seed))
    assert drawn.dtype == np.int64
    assert drawn.shape == (clients,)
    assert drawn.sum() == total
    assert drawn.min() >= least
    assert np.array_equal(drawn, sizes.draw(clients, total, least, rng(seed)))


def test_equal_sizes_leave_the_rest() -> None:
    assert Equal().draw(3, 11, 2, rng()).tolist() == [3, 3, 3]


def test_power_law_by_hand() -> None:
    # 1 + 1/2 + 1/3 + 1/4 = 25/12: of 250 samples 120, 60, 40 and 30.
    drawn = [PowerLaw(1.0).draw(4, 250, 2, rng(seed)) for seed in range(40)]
    assert all(sorted(sizes.tolist()) == [30, 40, 60, 120] for sizes in drawn)
    assert len({tuple(sizes) for sizes in drawn}) > 12  # ranks are dealt at random
    assert {int(sizes.argmax()) for sizes in drawn} == {0, 1, 2, 3}


def test_the_logarithm_of_lognormal_sizes_is_normal() -> None:
    logs = np.log(Lognormal(0.8).draw(20_000, 20_000_000, 2, rng()))
    assert logs.std() == pytest.approx(0.8, rel=0.03)
    centred = logs - logs.mean()
    assert np.mean(centred**3) == pytest.approx(0, abs=0.03)
    # The mean is exp(sigma^2 / 2) = 1.377 times the median.
    assert 1000 / np.exp(np.median(logs)) == pytest.approx(1.377, rel=0.03)


def test_small_shares_are_lifted_and_the_others_pay() -> None:
    # Of 100: shares 80, 16, 4 with at least 10; the last gets 10, the others share 90 as 5 to 1.
    assert apportion(np.array([80.0, 16.0, 4.0]), 100, 10).tolist() == [75, 15, 10]
    # Lifting one can put another below: 60, 11, 5 of 76 -> 66 is shared as 60 to 11, then 56 left.
    assert apportion(np.array([60.0, 11.0, 5.0]), 76, 10).tolist() == [56, 10, 10]
    assert apportion(np.array([60.0, 11.0, 5.0]), 76, np.array([2, 12, 20])).tolist() == [
        44,
        12,
        20,
    ]
    # Largest remainders: 3.5, 3.5 and 3 of 10; of equals the first.
    assert apportion(np.array([3.5, 3.5, 3.0]), 10, 1).tolist() == [4, 3, 3]


def test_sizes_within_groups_add_up_in_each() -> None:
    groups = np.array([0, 1, 0, 1, 0])
    drawn = draw_within(PowerLaw(1.0), groups, np.array([110, 30]), 2, rng())
    assert sorted(drawn[groups == 0].tolist()) == [20, 30, 60]
    assert sorted(drawn[groups == 1].tolist()) == [10, 20]


@pytest.mark.parametrize("path", with_knob("sizes"), ids=lambda path: path.stem)
def test_severity_grows_how_uneven_sizes_are(path: Path) -> None:
    def uneven(severity: str) -> float:
        sizes = at(path, severity)
        return float(np.mean([gini(sizes.draw(20, 69_000, 10, rng(i))) for i in range(20)]))

    found = [uneven(severity) for severity in RISING]
    assert found == pytest.approx([0, 0.15, 0.345, 0.57, 0.73], abs=0.03)
    assert all(a + 0.1 < b for a, b in itertools.pairwise(found))
    assert found[2] < uneven("default") < found[3]


def test_only_equal_sizes_have_no_knob() -> None:
    assert [path.stem for path in files("sizes") if path not in with_knob("sizes")] == ["equal"]
    assert at(files("sizes")[0], "severe") == Equal()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lognormal(-0.1), "sigma: must be at least 0, got -0.1"),
        (lambda: Lognormal(float("inf")), "sigma: must be at least 0, got inf"),
        (lambda: PowerLaw(-1.0), "exponent: must be at least 0, got -1.0"),
        (lambda: PowerLaw(float("inf")), "exponent: must be at least 0, got inf"),
    ],
)
def test_bad_settings_name_the_field(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
