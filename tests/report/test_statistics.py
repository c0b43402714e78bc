from pathlib import Path

import pytest

from fedtsd.errors import RunFolderError
from fedtsd.report.results import Hole, Results
from fedtsd.report.statistics import recommended, verdict
from tests.report.small import small


def said(results: Results, reference: str) -> str:
    return "\n".join(verdict(results, reference))


def steps(n: int, by: float) -> list[float]:
    """`n` accuracies; one more step makes the lead of a larger `by` larger at each seed."""
    return [0.5 + by * (1 + i / 10) for i in range(n)]


def test_our_best_variant_is_recommended_and_the_plain_recipe_without_it() -> None:
    scores = {"fedavg": {"s": [0.9]}, "fedtsdp": {"s": [0.5]}}
    assert recommended(small(scores)) == "fedtsdp"
    assert recommended(small({**scores, "fedtsdp_full": {"s": [0.4]}})) == "fedtsdp_full"


def test_without_it_the_best_clustered_method_over_common_cells() -> None:
    results = small(
        {
            "fedavg": {"easy": [0.9], "hard": [0.9]},
            "fedtsdp layers=1": {"easy": [0.8], "hard": [0.4]},
            "fedtsdp layers=2": {"easy": [0.7], "hard": [None]},  # has the best mean of its own
        }
    )
    assert recommended(results) == "fedtsdp layers=1"


def test_without_a_clustered_method_the_best_of_all() -> None:
    assert recommended(small({"local": {"s": [0.5]}, "fedavg": {"s": [0.6]}})) == "fedavg"
    with pytest.raises(RunFolderError, match="no finished run"):
        recommended(small({}))


def test_a_single_run_is_not_compared() -> None:
    assert verdict(small({"fedtsdp": {"s": [0.5]}}), "fedtsdp") == [
        "1 finished run: 1 method, 1 setting, 1 seed. Reported: test accuracy, last round.",
        "One seed per cell: there is no spread over seeds to tell chance from effect by.",
        "One method: there is nothing to compare it with.",
    ]


def test_no_finished_run_is_said() -> None:
    hole = Hole(Path("x"), "failed", (), "NaN")
    assert verdict(small({}, [hole, hole]), "fedtsdp") == [
        "No run has finished: there is nothing to compare.",
        "2 runs without a result (2 failed): left out of all that follows.",
    ]


def test_five_pairs_cannot_be_significant_however_clear() -> None:
    text = said(small({"fedavg": {"s": [0.1] * 5}, "fedtsdp": {"s": steps(5, 0.4)}}), "fedtsdp")
    assert "at most 5 pairs that differ" in text
    assert "can give is 0.062: no difference can be called significant at 0.05" in text
    assert "FedTSDP is neither shown better nor worse than FedAvg" in text
    assert "is significantly" not in text


def test_six_pairs_and_two_comparisons_fail_after_holm() -> None:
    results = small(
        {"local": {"s": [0.1] * 6}, "fedavg": {"s": [0.2] * 6}, "fedtsdp": {"s": steps(6, 0.4)}}
    )
    text = said(results, "fedtsdp")
    assert "0.031, after Holm's correction for 2 comparisons 0.062" in text
    assert "is significantly" not in text


def test_a_tied_pair_gives_no_power() -> None:
    five = [*steps(5, 0.4), 0.1]  # the sixth pair is equal
    text = said(small({"fedavg": {"s": [0.1] * 6}, "fedtsdp": {"s": five}}), "fedtsdp")
    assert "at most 5 pairs that differ" in text


def test_clear_differences_are_named_with_their_direction() -> None:
    middle = steps(8, 0.2)
    noise = [v + (-1) ** i * 0.001 * (i + 1) for i, v in enumerate(middle)]
    results = small(
        {
            "local": {"s": steps(8, 0.1)},
            "fedavg": {"s": steps(8, 0.3)},
            "fedper": {"s": noise},
            "fedtsdp": {"s": middle},
        }
    )
    text = said(results, "fedtsdp")
    # 0.1 (1 + i / 10) for i in 0..7: 13.5 points on average; p = 3 x 2 / 2^8.
    assert "FedTSDP is significantly more accurate than Local only: +13.5 points" in text
    assert "8 won, 0 lost, 0 tied, p = 0.023" in text
    assert "FedTSDP is significantly less accurate than FedAvg: −13.5 points" in text
    assert "neither shown better nor worse than FedPer; that does not show them equal" in text
    assert "Averaged over seeds, the pairs left are 1 setting: too few" in text
    assert "FedAvg has the best mean rank, 1.00" in text


def test_mean_and_ranks_that_disagree_call_nobody_better() -> None:
    # 29 wins of .001 to .029 and one loss of 1: ranks 435 to 30, but the mean is -.565 / 30.
    wins = [0.5 + i / 1000 for i in range(1, 30)]
    text = said(small({"a": {"s": [*wins, 0.0]}, "b": {"s": [0.5] * 29 + [1.0]}}), "a")
    assert "a and b differ significantly, but mean (−1.9 points) and ranks" in text
    assert "more accurate" not in text


def test_settings_count_when_there_are_enough() -> None:
    names = [f"s{i}" for i in range(7)]
    results = small(
        {
            "fedavg": {name: [0.1, 0.2] for name in names},
            "fedtsdp": {name: [0.3 + i / 50, 0.4] for i, name in enumerate(names)},
        }
    )
    text = said(results, "fedtsdp")
    assert "with up to 7 settings as pairs, FedTSDP is significantly better than: FedAvg" in text
    assert "worse than: none" in text


def test_what_limits_the_words_is_said() -> None:
    results = small({"fedavg": {"s": [0.5, 0.6], "t": [0.5]}, "local": {"u": [0.1]}})
    text = said(results, recommended(results))
    assert "2 of 3 cells of the table have one seed only" in text
    assert "If FedAvg was picked for its mean on these very runs" in text
    assert "FedAvg has no setting and seed in common with Local only" in text
    assert (
        "needs 3 methods and 6 cells (setting and seed) in which each has a run; there are 2 and 0"
        in text
    )


def test_no_difference_among_all_is_said() -> None:
    results = small({name: {"s": [0.5] * 6} for name in ("local", "fedavg", "fedtsdp")})
    text = said(results, "fedtsdp")
    assert "Friedman's test finds no difference among the 3 methods (F = 0.00, p = 1.000)" in text
