from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedtsd.report.across import (
    curve,
    legend_below,
    name_ends,
    num_seeds,
    pick,
    sample,
    seed_words,
)
from fedtsd.report.results import Results
from fedtsd.report.style import method_mark, paper_style, settle, titled_figure
from tests.report.drawn import group, overlaps, texts
from tests.report.sweeps import write, write_two_seeds

SETTING = "Dirichlet α = 0.1"


def test_the_curve_is_the_mean_over_seeds_each_interpolated_between_its_rounds(
    tmp_path: Path,
) -> None:
    found = curve(Results.read([write_two_seeds(tmp_path)]), "fedavg", SETTING)
    # Both seeds cover rounds 2 to 5; seed 0 has 70 % at 5, seed 1 has 10 + 70 / 3 % at 2.
    assert found["round"].tolist() == [2, 4, 5]
    assert found["mean"].tolist() == pytest.approx([(20 + 10 + 70 / 3) / 2, 70, 80])
    assert found["std"].tolist() == pytest.approx([(10 + 70 / 3 - 20) / 2**0.5, 200**0.5, 200**0.5])


def test_the_mean_over_equal_rounds_is_that_of_rounds_csv(
    swept: Callable[[str], Results],
) -> None:
    results = swept("severities")
    for setting in results.settings:
        rows = results.rounds.query("method == 'fedtsdp' and setting == @setting")
        expected = rows.groupby("round")["score_mean"].mean() * 100
        found = curve(results, "fedtsdp", setting)
        np.testing.assert_allclose(found["mean"], expected)


def test_picking_keeps_order_first_and_last() -> None:
    assert pick(list("abcde"), 5) == list("abcde")
    assert pick(list("abcdefg"), 3) == ["a", "d", "g"]


def test_seeds_in_words(tmp_path: Path) -> None:
    write(tmp_path / "a", ("fedavg",), seeds=(0, 1, 2), rounds=1)
    assert num_seeds(Results.read([tmp_path])) == "3 seeds"
    write(tmp_path / "b", ("local",), seeds=(0,), rounds=1)
    assert num_seeds(Results.read([tmp_path])) == "1 to 3 seeds"


@pytest.mark.parametrize("width", [3.3, 7.0])
@pytest.mark.parametrize(
    "names",
    [
        ["one"],
        ["short"] * 12,
        ["short", "a name of more than thirty glyphs"] * 3,
        ["word " * 40] * 3,
    ],
)
def test_a_legend_stays_below_the_panel_and_on_the_page(
    monkeypatch: pytest.MonkeyPatch, names: list[str], width: float
) -> None:
    with paper_style():
        figure = titled_figure("title", width, 2.0)
        figure.subplots().set_xlabel("round")
        legend_below(figure, [sample(name, method_mark("fedtsdp")) for name in names])
        settle(figure)
    drawn = texts(figure, monkeypatch)
    assert overlaps(drawn) == []
    assert sum(text.replace("\n", " ") == names[0].strip() for text, _ in drawn) >= 1
    assert all(box.x0 > 0 and box.x1 < width * 72 and box.y0 > 0 for _, box in drawn)
    (ax,) = figure.axes
    assert ax.get_position().height * figure.get_size_inches()[1] > 1.2


def test_short_names_take_few_rows() -> None:
    with paper_style():
        figure = titled_figure("", 7.0, 2.0)
        legend_below(figure, [sample("FedAvg", method_mark("fedavg")) for _ in range(7)])
    assert isinstance(figure, Figure)
    assert figure.get_size_inches()[1] < 2.2


def test_names_at_the_ends_of_lines_keep_apart_and_show_their_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = method_mark("fedper")
    with paper_style():
        figure = titled_figure("", 3.3, 2.0)
        ax = figure.subplots()
        ax.set_ylim(0, 100)
        name_ends(ax, [(50.0, "a", mark), (50.1, "b", mark), (49.9, "c", mark)])
        settle(figure)
    drawn = texts(figure, monkeypatch)
    assert overlaps(drawn) == []
    heights = {text: box.y0 for text, box in drawn if text in "abc"}
    assert heights["b"] > heights["a"] > heights["c"]
    assert {line.get_marker() for line in group(figure, "sample")} == {mark.marker}


def test_what_stands_for_the_seeds(tmp_path: Path) -> None:
    one = Results.read([write(tmp_path / "a", ("fedavg",), seeds=(0,), rounds=1)])
    assert seed_words(one, " (band)") == "one seed"
    two = Results.read([write(tmp_path / "b", ("fedavg",), seeds=(0, 1), rounds=1)])
    assert seed_words(two, " (band)") == "mean ± 1 std (band) of 2 seeds"
