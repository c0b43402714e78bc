import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.data.deal import draw_laws, fit_laws, hand_out, mix, repair


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_laws_are_fitted_to_what_there_is() -> None:
    laws = np.array([[0.5, 0.5], [0.9, 0.1], [0.9, 0.1]])
    sizes, supply = np.array([10, 10, 10]), np.array([15, 15])
    fitted = fit_laws(laws, sizes, supply)
    assert sizes @ fitted == pytest.approx(supply, rel=1e-3)
    # Odds change by one factor for all clients: who leans to a class goes on doing so.
    odds = fitted[:, 0] / fitted[:, 1]
    assert odds[1] / odds[0] == pytest.approx(9)
    plenty = np.array([40, 40])
    assert np.array_equal(fit_laws(laws, sizes, plenty), laws)


def test_the_heaviest_client_chooses_first_and_weighs_most() -> None:
    for seed in range(20):
        holds = hand_out(np.array([1.0, 4.0, 1.0, 1.0]), np.zeros(2), 1, rng(seed))
        first = holds[1].argmax()
        assert holds[:, first].tolist() == [False, True, False, False]
    # Where a class has more samples to start with, it is chosen until the other has as many left.
    holds = hand_out(np.array([3.0, 2.0, 1.0]), np.array([-2.0, -6.0]), 1, rng())
    assert holds.argmax(axis=1).tolist() == [1, 1, 0]


def test_repair_takes_from_the_richest_and_says_how_much() -> None:
    dealt = repair([np.arange(1), np.arange(1, 30), np.arange(30, 40)], 5, rng())
    assert [len(part) for part in dealt.parts] == [5, 25, 10]
    assert sorted(np.concatenate(dealt.parts).tolist()) == list(range(40))
    assert dealt.moved == 4


def test_repair_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="min_size: 2 clients cannot have 5 samples each"):
        repair([np.arange(4), np.arange(4, 9)], 5, rng())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(2, 10))
def test_repair_moves_no_more_than_is_missing(lengths, min_size) -> None:
    ends = np.cumsum(lengths)
    parts = np.split(np.arange(ends[-1]), ends[:-1])
    if ends[-1] < min_size * len(lengths):
        return
    dealt = repair(parts, min_size, rng())
    assert dealt.moved == sum(max(0, min_size - length) for length in lengths)
    assert min(map(len, dealt.parts)) >= min_size
    assert sorted(np.concatenate(dealt.parts).tolist()) == list(range(ends[-1]))


def test_a_class_that_runs_out_is_left_out() -> None:
    pools = [np.arange(3), np.arange(3, 100)]
    laws = np.array([[1.0, 0.0], [1.0, 0.0]])
    dealt = draw_laws(pools, laws, np.array([10, 4]), rng())
    assert [len(part) for part in dealt.parts] == [10, 4]
    assert set(range(3)) <= set(np.concatenate(dealt.parts).tolist())
    assert dealt.moved == 11


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.floats(0, 1))
def test_mixing_keeps_every_sample_and_size(lengths, share) -> None:
    ends = np.cumsum(lengths)
    parts = np.split(np.arange(ends[-1]), ends[:-1])
    mixed = mix(parts, share, rng())
    assert [len(part) for part in mixed] == lengths
    assert sorted(np.concatenate(mixed).tolist()) == list(range(ends[-1]))
