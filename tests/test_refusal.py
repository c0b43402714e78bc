"""What is wrong with a reply; who asks is tested in test_channel.py."""

import pytest
import torch

from fedtsd.refusal import LARGEST, flaw_in_sum, flaw_of_model, within_bounds

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, -2.0], True),
        ([LARGEST, -LARGEST], True),
        ([1.0, 1.01 * LARGEST], False),
        ([-1.01 * LARGEST, 1.0], False),
        ([INF, -INF], False),
        ([-INF], False),
        ([NAN, 1.0], False),
        ([1.0, NAN], False),
        ([], True),
    ],
)
def test_whether_all_elements_are_within_bounds(values, expected: bool) -> None:
    assert within_bounds(torch.tensor(values)) is expected


def test_a_flaw_names_the_tensor() -> None:
    good = torch.ones(2)
    assert flaw_of_model({"a": good, "b": good}) is None
    assert flaw_of_model({"a": good, "b": good * NAN}).startswith("b has NaN")
    assert flaw_of_model({"a": good * 1e9, "b": good}).startswith("a has values beyond 1e+06")


def test_a_model_is_summed_if_its_weight_is_right_too() -> None:
    good = {"a": torch.ones(2)}
    assert flaw_in_sum(3, good) is None
    assert flaw_in_sum(0, good) == "num_examples is 0, must be 1 to 536870911"
    assert "NaN" in flaw_in_sum(3, {"a": torch.full((2,), NAN)})
