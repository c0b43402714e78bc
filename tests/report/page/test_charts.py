import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from fedtsd.report.page import charts, site_charts, svg
from fedtsd.report.page.answer import choose_roles
from fedtsd.report.page.names import Names
from fedtsd.report.page.sites import SiteRow
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results

Get = Callable[[str], Results]


def names(results: Results, lang: str = "en") -> Names:
    return Names(Words(lang), results, choose_roles(results))


def test_text_is_escaped() -> None:
    assert "&lt;b&gt;" in svg.text(0, 0, "<b>")
    assert "&lt;b&gt;" in svg.figure(10, "<b>", "d", [], "x")


def test_words_that_do_not_fit_are_shortened() -> None:
    assert svg.fit("FedAvg", 100) == "FedAvg"
    short = svg.fit("a name that is much too long", 80)
    assert short.endswith("…")
    assert svg.room(short) <= 80
    assert svg.room("単独") == pytest.approx(1.05 * 2 * svg.TEXT)  # square letters
    assert svg.room("x" * 99) == 0.4 * svg.WIDTH


def points(html: str, kind: str) -> list[tuple[float, float]]:
    found = re.search(rf'<polyline points="([^"]*)" class="curve {kind}"', html)
    assert found
    return [(float(x), float(y)) for x, y in (p.split(",") for p in found.group(1).split())]


def test_a_curve_has_a_point_per_round_and_rises_where_accuracy_does(results: Get) -> None:
    many = results("many")
    html = charts.over_rounds(names(many), many.settings[0], "x")
    assert html is not None
    curve = points(html, "focus")
    means = many.rounds.query("method == 'fedtsdp'").groupby("round")["score_mean"].mean()
    assert len(curve) == len(means) == 8
    ups = [a[1] > b[1] for a, b in pairwise(curve)]
    assert ups == (means.diff().dropna() > 0).tolist()
    assert f">FedTSDP {100 * means.iloc[-1]:.1f}</text>" in html


def test_labels_at_the_ends_of_curves_keep_apart(results: Get) -> None:
    holes = results("holes")
    html = charts.over_rounds(names(holes), "Dirichlet α = 1", "x")
    assert html is not None
    places = [float(y) for y in re.findall(r'y="([\d.]+)" class="label', html)]
    assert len(places) == 4
    gaps = [b - a for a, b in pairwise(sorted(places))]
    assert min(gaps) >= svg.TEXT


def test_bars_are_as_long_as_their_accuracy(results: Get) -> None:
    many = results("many")
    html = charts.by_setting(names(many), "x")
    bars = re.findall(r'width="([\d.]+)" height="11" class="(track|bar \w+)"', html)
    lengths = {kind: float(width) for width, kind in bars}
    means = many.table.groupby("method")["score"].mean()
    for kind, method in (("focus", "fedtsdp"), ("alone", "local"), ("common", "fedavg")):
        assert lengths[f"bar {kind}"] / lengths["track"] == pytest.approx(means[method], abs=1e-3)
    stds = many.table.groupby("method")["score"].std()
    assert f"{100 * means['local']:.1f}% ± {100 * stds['local']:.1f}" in html


def row(client: int, alone: float | None, focus: float) -> SiteRow:
    gain = None if alone is None else focus - alone
    return SiteRow(client, 9, 9, alone, None, focus, gain, 0.1, 0, 0, None, None, None)


def test_a_dumbbell_per_site_with_the_largest_gain_on_top(results: Get) -> None:
    rows = [row(0, 0.5, 0.55), row(1, 0.5, 0.9), row(2, 0.5, 0.2), row(3, None, 0.9)]
    html = site_charts.dumbbell(names(results("one")), rows, "x")
    assert html is not None
    assert re.findall(r">site (\d+)<", html) == ["1", "0", "2"]
    assert re.findall(r'class="stem (\w+)"', html) == ["better", "unclear", "worse"]
    starts = re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"[^>]*class="stem', html)
    assert [float(a) < float(b) for a, b in starts] == [True, True, False]


def test_without_gains_there_is_no_dumbbell(results: Get) -> None:
    assert site_charts.dumbbell(names(results("one")), [row(0, None, 0.5)], "x") is None


def test_the_timeline_has_a_block_per_stay(results: Get) -> None:
    one = results("one")
    html = site_charts.cluster_timeline(names(one, "ja"), one.runs[0], "x")
    blocks = re.findall(r'<rect[^>]*class="(c\d+)"', html)
    assert len(blocks) == 1 + 2 + 4  # one cluster, then two, then four
    assert len(set(blocks)) == 7
    assert re.findall(r">(C\d)</text>", html)[-4:] == ["C3", "C4", "C5", "C6"]
    assert html.count(">拠点") == 20
