"""Signatures stand in for cosines of updates of clients that never met."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.clustering import signatures as module
from fedtsd.clustering.signatures import SIZE, Signatures, directions_of, follows_visits
from fedtsd.clustering.similarity import centred_cosines


def none_of(n: int) -> Signatures:
    return Signatures.read({}, "x", n)


def models(count: int, seed: int = 0, groups: int = 1, size: int = 3000) -> list[dict]:
    """Models of two tensors: a common centre, a direction of each group, and noise."""
    rng = np.random.default_rng(seed)
    centre, ways = rng.normal(size=size), rng.normal(size=(groups, size))
    found = []
    for i in range(count):
        flat = (centre + ways[i % groups] + 0.3 * rng.normal(size=size)).astype(np.float32)
        found.append({"a": flat[:1000].reshape(10, 100), "b": flat[1000:]})
    return found


def test_cosines_are_those_of_the_centred_updates_within_the_error_of_the_sketch() -> None:
    rows = models(12, groups=3)
    exact = centred_cosines(np.stack([np.concatenate([r["a"].ravel(), r["b"]]) for r in rows]))
    sketched = none_of(12).visited(np.arange(12), rows, 3, keep=0.5).cosines(np.arange(12))
    assert np.abs(sketched - exact).max() < 5 * np.sqrt(2 / SIZE)
    assert np.abs(sketched - exact).mean() < np.sqrt(2 / SIZE)
    assert (sketched.diagonal() == 1).all()


@given(st.integers(4, 9), st.floats(-3, 3))
def test_what_is_common_to_all_of_them_cancels(count: int, shift: float) -> None:
    rows = models(count, seed=count, size=1200)
    moved = [{name: row[name] + np.float32(shift) for name in row} for row in rows]
    assert directions_of(moved) == pytest.approx(directions_of(rows), abs=1e-4)
    assert np.linalg.norm(directions_of(rows), axis=1) == pytest.approx(np.ones(count))


def test_equal_models_have_no_direction() -> None:
    (row,) = models(1)
    assert not directions_of([row] * 5).any()
    cosines = none_of(5).visited(np.arange(5), [row] * 5, 1, 0.5).cosines(np.arange(5))
    assert np.array_equal(cosines, np.eye(5))


def test_tensors_that_not_all_share_are_left_out() -> None:
    rows = models(4)
    only_b = [{"b": row["b"]} for row in rows]
    assert np.array_equal(directions_of([*rows[:3], only_b[3]]), directions_of(only_b))


def test_a_sketch_does_not_depend_on_how_a_tensor_is_cut_into_blocks(monkeypatch) -> None:
    rows = models(5)
    whole = directions_of(rows)
    monkeypatch.setattr("fedtsd.clustering.similarity._BLOCK", 3)
    assert directions_of(rows) == pytest.approx(whole, abs=1e-12)


def test_the_past_counts_by_its_weight_and_the_first_visit_alone() -> None:
    first, second = models(4, seed=1), models(4, seed=2)
    once = none_of(6).visited(np.arange(4), first, 3, keep=0.25)
    assert np.array_equal(once.directions[:4], directions_of(first))
    twice = once.visited(np.arange(2, 6), second, 5, keep=0.25)
    new = directions_of(second)
    assert np.array_equal(twice.directions[:2], directions_of(first)[:2])
    assert twice.directions[2] == pytest.approx(0.25 * directions_of(first)[2] + 0.75 * new[0])
    assert np.array_equal(twice.directions[4], new[2])
    assert twice.visits.tolist() == [3, 3, 5, 5, 5, 5]


def test_a_mean_of_three_says_too_little() -> None:
    assert not none_of(3).visited(np.arange(3), models(3), 2, 0.5).visits.any()


def test_a_new_cluster_is_centred_and_who_moves_starts_again() -> None:
    signed = none_of(6).visited(np.arange(5), models(5), 2, 0.5)
    centred = signed.centred(np.array([0, 1, 2, 5]))  # 5 has none: it does not count
    assert centred.directions[:3].mean(axis=0) == pytest.approx(np.zeros(SIZE), abs=1e-12)
    assert np.array_equal(centred.directions[3:], signed.directions[3:])
    gone = signed.forgotten(np.array([1]))
    assert gone.visits.tolist() == [2, 0, 2, 2, 2, 0]
    assert not gone.directions[1].any()
    assert signed.centred(np.array([5])) is signed


def test_they_are_kept_as_named_arrays() -> None:
    signed = none_of(6).visited(np.array([0, 2, 3, 5]), models(4), 2, 0.5)
    memory = signed.stored("mine")
    assert {name: array.shape for name, array in memory.items()} == {
        "mine": (4, SIZE), "mine.visits": (6,),
    }  # fmt: skip
    again = Signatures.read(memory, "mine", 6)
    assert again.directions == pytest.approx(signed.directions, abs=1e-7)
    assert np.array_equal(again.visits, signed.visits)
    assert np.array_equal(again.stored("mine")["mine"], memory["mine"])


def test_groups_of_clients_that_came_together_follow_visits() -> None:
    rng = np.random.default_rng(0)
    visits = np.repeat([3, 4, 5, 6], 8)
    assert follows_visits(visits % 2, visits, rng)
    assert follows_visits(np.where(rng.random(32) < 0.2, 0, visits), visits, rng)
    assert not follows_visits(np.zeros(32, dtype=int), visits, rng)
    # All came in the last round: nothing can be said against the groups.
    assert not follows_visits(np.arange(32) % 4, np.full(32, 7), rng)
    by_chance = [follows_visits(rng.integers(3, size=32), visits, rng) for _ in range(100)]
    assert sum(by_chance) <= 12  # 5 expected


def test_the_sketch_is_the_same_in_every_process() -> None:
    module._sketch.cache_clear()
    first = module._sketch("conv1.weight", 50).toarray()
    module._sketch.cache_clear()
    assert np.array_equal(module._sketch("conv1.weight", 50).toarray(), first)
    assert not np.array_equal(module._sketch("conv2.weight", 50).toarray(), first)
    assert (np.abs(first).sum(axis=1) == 1).all()
