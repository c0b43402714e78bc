"""Attacks that tell members from others, on worlds in which it is known what they should find."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.membership import auc, caught, interval, likelihood_ratios, linear_scores

WORLDS, CANDIDATES, NUMBERS = 40, 30, 25


def coins(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (WORLDS, CANDIDATES)).astype(bool)


def test_auc_by_hand() -> None:
    scores, inside = np.array([[1.0, 2.0, 2.0, 3.0]]), np.array([[False, True, False, True]])
    # Pairs (2, 1), (2, 2), (3, 1), (3, 2): won, tied, won, won.
    assert auc(scores, inside) == 3.5 / 4
    assert auc(-scores, inside) == 0.5 / 4


@given(st.integers(0, 10_000))
def test_auc_is_the_share_of_pairs_that_are_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, inside = rng.integers(0, 4, 12).astype(float), np.arange(12) % 3 == 0
    gaps = scores[inside][:, None] - scores[~inside]
    assert auc(scores, inside) == pytest.approx(((gaps > 0) + (gaps == 0) / 2).mean())


def test_a_likelihood_ratio_by_hand() -> None:
    """One candidate; of the other worlds, those with it have 2 and 4, those without 0 and 2."""
    seen, inside = np.array([[9.0], [2], [4], [0], [2]]), np.array([[True], [1], [1], [0], [0]])
    inside = inside.astype(bool)
    # Means 3 and 1, both variances (1 + 1) / (2 - 1) = 2.
    expected = (-((9 - 3) ** 2) + (9 - 1) ** 2) / (2 * 2)
    assert likelihood_ratios(seen, inside)[0, 0] == pytest.approx(expected)


def test_whatever_is_told_is_found() -> None:
    """Each candidate has a level of its own, so no one threshold would do."""
    inside, rng = coins(), np.random.default_rng(1)
    levels = 10 * rng.normal(size=CANDIDATES)
    seen = levels + inside + 0.05 * rng.normal(size=inside.shape)
    assert auc(likelihood_ratios(seen, inside), inside) == 1
    assert auc(seen, inside) < 0.6
    assert caught(likelihood_ratios(seen, inside), inside) > 0.99


def test_what_outputs_tell_of_a_few_candidates_is_found() -> None:
    inside, rng = coins()[:, :5], np.random.default_rng(2)
    directions = rng.normal(size=(5, NUMBERS))
    outputs = inside @ directions + 0.02 * rng.normal(size=(WORLDS, NUMBERS))
    assert auc(linear_scores(outputs, inside, ridge=0.01), inside) > 0.99


@pytest.mark.parametrize("seed", range(3))
def test_who_sees_nothing_finds_nothing(seed: int) -> None:
    inside, rng = coins(seed), np.random.default_rng([3, seed])
    blind = rng.normal(size=inside.shape)
    outputs = rng.normal(size=(WORLDS, NUMBERS))
    for scores in (likelihood_ratios(blind, inside), linear_scores(outputs, inside)):
        assert auc(scores, inside) == pytest.approx(0.5, abs=0.06)
        low, high = interval(auc, scores, inside, rng)
        assert low < 0.5 < high
        assert caught(scores, inside) < 0.04


def test_a_world_is_not_judged_by_itself() -> None:
    """Its own coin changes no score of it: else blind attacks would seem to see."""
    inside, rng = coins(), np.random.default_rng(4)
    seen, outputs = rng.normal(size=inside.shape), rng.normal(size=(WORLDS, NUMBERS))
    turned = inside.copy()
    turned[7] = ~turned[7]
    for scores, again in (
        (likelihood_ratios(seen, inside), likelihood_ratios(seen, turned)),
        (linear_scores(outputs, inside), linear_scores(outputs, turned)),
    ):
        assert np.array_equal(scores[7], again[7])
        assert not np.array_equal(scores[8], again[8])


def test_numbers_that_never_vary_do_no_harm() -> None:
    inside = coins()
    assert np.isfinite(likelihood_ratios(np.ones(inside.shape), inside)).all()
    assert np.isfinite(linear_scores(np.ones((WORLDS, NUMBERS)), inside)).all()


def test_the_script_runs() -> None:
    script = Path(__file__).parent.parent / "scripts/membership.py"
    command = [sys.executable, str(script), "--worlds=2", "rounds=2", "partition.num_clients=3",
               "partition.samples_per_client=60", "model.hidden=[8,8]"]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    for row in (
        "| models sent | last | threshold |",
        "| centres | all |",
        "| outputs | all | linear |",
    ):
        assert row in ran.stdout
