"""Signatures stand in for cosines of updates of clients that never met."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.clustering import signatures as module
from fedtsd.clustering.signatures import SIZE, Signatures, directions_of
from fedtsd.clustering.similarity import cosines_of

ZERO = {"a": np.zeros((10, 100), dtype=np.float32), "b": np.zeros(2000, dtype=np.float32)}
"""What models moved from, where it does not matter."""


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
    exact = cosines_of([[row["a"], row["b"]] for row in rows], [ZERO["a"], ZERO["b"]])
    sketched = none_of(12).visited(np.arange(12), rows, ZERO, 3, keep=0.5).cosines(np.arange(12))
    assert np.abs(sketched - exact).max() < 5 * np.sqrt(2 / SIZE)
    assert np.abs(sketched - exact).mean() < np.sqrt(2 / SIZE)
    assert (sketched.diagonal() == 1).all()


@given(st.integers(4, 9), st.floats(-3, 3))
def test_what_is_common_to_all_of_them_cancels(count: int, shift: float) -> None:
    rows = models(count, seed=count, size=1200)
    sent = {"a": ZERO["a"], "b": ZERO["b"][:200]}
    moved = [{name: row[name] + np.float32(shift) for name in row} for row in rows]
    start = {name: sent[name] + np.float32(shift) for name in sent}
    found = directions_of(rows, sent)
    assert directions_of(moved, start) == pytest.approx(found, abs=1e-4)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(count))


def test_how_far_a_client_moved_does_not_matter() -> None:
    rows = models(6, groups=2)
    longer = [{name: np.float32(i + 1) * row[name] for name in row} for i, row in enumerate(rows)]
    assert directions_of(longer, ZERO) == pytest.approx(directions_of(rows, ZERO), abs=1e-5)


def test_equal_models_have_no_direction() -> None:
    (row,) = models(1)
    assert not directions_of([row] * 5, ZERO).any()
    cosines = none_of(5).visited(np.arange(5), [row] * 5, ZERO, 1, 0.5).cosines(np.arange(5))
    assert np.array_equal(cosines, np.eye(5))


def test_tensors_that_not_all_share_are_left_out() -> None:
    rows = models(4)
    only_b = [{"b": row["b"]} for row in rows]
    assert np.array_equal(directions_of([*rows[:3], only_b[3]], ZERO), directions_of(only_b, ZERO))


def test_a_sketch_does_not_depend_on_how_a_tensor_is_cut_into_blocks(monkeypatch) -> None:
    rows = models(5)
    whole = directions_of(rows, ZERO)
    monkeypatch.setattr("fedtsd.clustering.similarity._BLOCK", 3)
    assert directions_of(rows, ZERO) == pytest.approx(whole, abs=1e-12)


def test_the_past_counts_by_its_weight_and_the_first_visit_alone() -> None:
    first, second = models(4, seed=1), models(4, seed=2)
    once = none_of(6).visited(np.arange(4), first, ZERO, 3, keep=0.25)
    assert np.array_equal(once.directions[:4], directions_of(first, ZERO))
    twice = once.visited(np.arange(2, 6), second, ZERO, 5, keep=0.25)
    new = directions_of(second, ZERO)
    assert np.array_equal(twice.directions[:2], directions_of(first, ZERO)[:2])
    assert twice.directions[2] == pytest.approx(
        0.25 * directions_of(first, ZERO)[2] + 0.75 * new[0]
    )
    assert np.array_equal(twice.directions[4], new[2])
    assert twice.visits.tolist() == [3, 3, 5, 5, 5, 5]


def test_a_mean_of_three_says_too_little() -> None:
    assert not none_of(3).visited(np.arange(3), models(3), ZERO, 2, 0.5).visits.any()


def test_a_new_cluster_is_centred_and_who_moves_starts_again() -> None:
    signed = none_of(6).visited(np.arange(5), models(5), ZERO, 2, 0.5)
    centred = signed.centred(np.array([0, 1, 2, 5]))  # 5 has none: it does not count
    assert centred.directions[:3].mean(axis=0) == pytest.approx(np.zeros(SIZE), abs=1e-12)
    assert np.array_equal(centred.directions[3:], signed.directions[3:])
    gone = signed.forgotten(np.array([1]))
    assert gone.visits.tolist() == [2, 0, 2, 2, 2, 0]
    assert not gone.directions[1].any()
    assert signed.centred(np.array([5])) is signed


def test_they_are_kept_as_named_arrays() -> None:
    signed = none_of(6).visited(np.array([0, 2, 3, 5]), models(4), ZERO, 2, 0.5)
    memory = signed.stored("mine")
    assert {name: array.shape for name, array in memory.items()} == {
        "mine": (4, SIZE), "mine.visits": (6,),
    }  # fmt: skip
    again = Signatures.read(memory, "mine", 6)
    assert again.directions == pytest.approx(signed.directions, abs=1e-7)
    assert np.array_equal(again.visits, signed.visits)
    assert np.array_equal(again.stored("mine")["mine"], memory["mine"])


def test_the_sketch_is_the_same_in_every_process() -> None:
    module._sketch.cache_clear()
    first = module._sketch("conv1.weight", 50).toarray()
    module._sketch.cache_clear()
    assert np.array_equal(module._sketch("conv1.weight", 50).toarray(), first)
    assert not np.array_equal(module._sketch("conv2.weight", 50).toarray(), first)
    assert (np.abs(first).sum(axis=1) == 1).all()
