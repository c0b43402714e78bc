import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from fedtsd.report.across import NotApplicableError
from fedtsd.report.critical_difference import clique_levels, critical_difference
from fedtsd.report.ranks import FriedmanResult, friedman
from fedtsd.report.results import Results
from tests.report.drawn import group, overlaps, texts, words
from tests.report.small import small

NAMES = (
    "local", "fedavg", "fedprox", "fedper", "FedAvg + fine-tuning", "LG-FedAvg", "ditto", "ifca",
    "FedTSDP, stage 1 only", "FedTSDP without ejection of outliers", "cfl", "fedtsdp",
)  # fmt: skip


def ladder(names: tuple[str, ...], step: float, noise: float = 0.02) -> Results:
    """Methods of rising accuracy over two settings and five seeds."""
    rng = np.random.default_rng(0)
    return small(
        {
            name: {s: list(0.5 + step * i + noise * rng.normal(size=5)) for s in ("mild", "harsh")}
            for i, name in enumerate(names)
        }
    )


CASES = {
    "three": ladder(NAMES[:2] + NAMES[-1:], 0.02),
    "four": ladder(NAMES[:4], 0.01),
    "twelve": ladder(NAMES, 0.01),
    "in order": ladder(NAMES, 0.1, noise=0.0),
    "alike": ladder(NAMES[:5], 0.0),
    "tied": small({name: {"s": [0.5] * 6} for name in "abc"}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_method_is_named_and_no_text_covers_another(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = CASES[case]
    figure = critical_difference(results)
    drawn = texts(figure, monkeypatch)
    assert overlaps(drawn) == []
    shown = {re.sub(r"\s+", " ", text) for text, _ in drawn}
    assert set(results.labels.values()) <= shown
    width, height = figure.get_size_inches() * 72
    assert all(
        box.x0 >= -0.5 and box.x1 <= width + 0.5 and box.y0 >= -0.5 and box.y1 <= height + 0.5
        for _, box in drawn
    )


def test_marks_stand_at_the_mean_ranks_and_the_bar_is_as_long_as_the_difference() -> None:
    results = CASES["twelve"]
    test = friedman(results)
    assert test is not None
    figure = critical_difference(results)
    xs = [line.get_xdata()[0] for line in group(figure, "rank") if isinstance(line, Line2D)]
    ranks = [*test.ranks.iloc[:6], *test.ranks.iloc[:5:-1]]  # left side down, right side down
    scale = (max(xs) - min(xs)) / (max(ranks) - min(ranks))
    assert np.subtract(xs, xs[0]) == pytest.approx(scale * np.subtract(ranks, ranks[0]))
    (bar,) = group(figure, "difference")
    assert isinstance(bar, Line2D)
    assert np.ptp(bar.get_xdata()) == pytest.approx(scale * test.critical_difference)
    assert f"CD = {test.critical_difference:.2f}" in words(figure)
    assert len(group(figure, "clique")) == len(test.cliques)


def test_leaders_cross_no_other() -> None:
    figure = critical_difference(CASES["twelve"])
    paths = [line.get_xydata() for line in group(figure, "leader") if isinstance(line, Line2D)]
    for i, path in enumerate(paths):
        (x, _), (_, y), (edge, _) = path
        low, high = sorted((x, edge))
        others = paths[:i] + paths[i + 1 :]
        assert not any(low < p[0][0] < high and p[1][1] > y for p in others)


def test_bars_on_one_line_never_touch() -> None:
    ranks = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0})
    cliques = (("a", "b"), ("b", "c"), ("d", "e"))
    test = FriedmanResult(ranks, 9, 1.0, 1.0, 0.01, 1.5, cliques)
    assert clique_levels(test) == [0, 1, 0]


def test_without_a_difference_one_bar_joins_all_and_the_note_says_so() -> None:
    figure = critical_difference(CASES["alike"])
    assert len(group(figure, "clique")) == 1
    assert any("no difference found" in text for text in words(figure))


def test_too_few_cells_are_refused_in_one_line() -> None:
    with pytest.raises(NotApplicableError, match=r"needs 3 methods and 6 cells .* got 2 and 3"):
        critical_difference(small({"a": {"s": [0.1] * 3}, "b": {"s": [0.2] * 3}}))
