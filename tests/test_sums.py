import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.clients.flat import Layout
from fedtsd.clients.gathering import FlatSumming
from fedtsd.sums import Summing, summing_order, weight_of


def test_a_weighted_mean_by_hand() -> None:
    summing = Summing()
    summing.add({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, 3.0)
    summing.add({"a": torch.tensor([5.0])}, 1.0)
    sums = summing.result()
    assert sums.mean("a").tolist() == [2.0]
    assert sums.mean("b").tolist() == [2.0]
    assert sums.mean("c") is None
    assert sums.weights == {"a": 4.0, "b": 3.0}


def test_a_sum_keeps_what_float32_would_lose() -> None:
    summing = Summing()
    for value in (1.0, 1e-9, -1.0):
        summing.add({"a": torch.tensor([value])}, 1.0)
    assert summing.result().tensors["a"].item() == pytest.approx(1e-9, rel=1e-6)


def test_weights() -> None:
    assert weight_of(40, "samples") == 40.0
    assert weight_of(40, "uniform") == 1.0


def test_the_largest_come_first_and_ties_keep_their_order() -> None:
    assert summing_order([3, 9, 3, 10, 9]) == [3, 1, 4, 0, 2]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 999)), max_size=6))
def test_a_flat_sum_has_the_bits_of_a_plain_one(clients) -> None:
    rng = np.random.default_rng(len(clients))
    shapes = {"conv": (2, 3, 2, 2), "bias": (2,), "fc": (3, 4)}
    layout = Layout({name: torch.zeros(shape) for name, shape in shapes.items()})
    plain, flat = Summing(), FlatSumming(layout)
    for keeps_conv, keeps_bias, weight in clients:
        model = {
            name: torch.tensor(rng.normal(size=shape), dtype=torch.float32)
            for name, shape in shapes.items()
        }
        personal = frozenset(["conv"] * keeps_conv + ["bias"] * keeps_bias)
        plain.add({n: t for n, t in model.items() if n not in personal}, float(weight))
        vector = torch.zeros(layout.size)
        layout.write(vector, model)
        flat.add(vector, personal, float(weight))
    one, other = plain.result(), flat.result()
    assert one.weights == other.weights
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.weights)
