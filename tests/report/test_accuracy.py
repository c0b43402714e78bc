from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedtsd.report.accuracy import accuracy, headline_stage
from fedtsd.report.style import method_colour, run_title
from fedtsd.report.tables import RunTables
from tests.report.drawn import group, words

Page = Callable[[str, str], Figure]


def line(figure: Figure, gid: str) -> Line2D:
    (artist,) = group(figure, gid)
    assert isinstance(artist, Line2D)
    return artist


def test_lines_are_the_columns_of_rounds_in_percent(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["typical"]
    figure = page("accuracy", "typical")
    for gid, column in (("mean", "score_mean"), ("worst", "score_worst10")):
        np.testing.assert_allclose(line(figure, gid).get_ydata(), run.rounds[column] * 100)
        np.testing.assert_array_equal(line(figure, gid).get_xdata(), run.rounds["round"])


def test_rounds_without_an_evaluation_are_left_out(page: Page) -> None:
    figure = page("accuracy", "large")
    assert list(np.asarray(line(figure, "mean").get_xdata())) == list(range(5, 61, 5))


def test_validation_is_the_mean_over_clients_of_the_headline_stage(
    tables: dict[str, RunTables],
    page: Page,
) -> None:
    run = tables["typical"]
    rows = run.clients[(run.clients["split"] == "val") & (run.clients["stage"] == "personalized")]
    expected = [rows[rows["round"] == r]["score"].mean() * 100 for r in range(1, 21)]
    np.testing.assert_allclose(
        line(page("accuracy", "typical"), "validation").get_ydata(), expected
    )


def test_the_headline_stage_is_the_one_that_rounds_average(tables: dict[str, RunTables]) -> None:
    run = tables["typical"]
    assert headline_stage(run) == "personalized"
    tuned = run.rounds.assign(score_mean=run.rounds["score_mean"] * 0.8)
    assert headline_stage(replace(run, rounds=tuned)) == "tuned"


def test_the_band_is_mean_and_std_clipped_to_percentages(tables: dict[str, RunTables]) -> None:
    run = tables["typical"]
    rounds = run.rounds.iloc[:3].assign(score_mean=[0.5, 0.9, 0.1], score_std=[0.1, 0.2, 0.3])
    (band,) = group(accuracy(replace(run, rounds=rounds)), "band")
    assert isinstance(band, FillBetweenPolyCollection)
    corners = {(x, round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(1, 40), (1, 60), (2, 70), (2, 100), (3, 0), (3, 40)}


def test_line_styles_tell_the_lines_apart_without_colour(page: Page) -> None:
    figure = page("accuracy", "typical")
    styles = [line(figure, gid).get_linestyle() for gid in ("mean", "worst", "validation")]
    assert styles == ["-", "--", ":"]
    assert line(figure, "mean").get_color() == method_colour("fedtsdp")


def test_lines_are_named_with_their_last_values(tables: dict[str, RunTables], page: Page) -> None:
    run = tables["typical"]
    last = run.rounds.iloc[-1]
    shown = words(page("accuracy", "typical"))
    assert f"test mean {last['score_mean'] * 100:.1f}" in shown
    assert f"worst 10 % {last['score_worst10'] * 100:.1f}" in shown
    assert "± 1 std" in shown
    assert any(word.startswith("val. mean") for word in shown)
    assert run_title(run, 3.3) in shown


def test_one_evaluated_round_shows_points_and_a_bar(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["one_round"]
    figure = page("accuracy", "one_round")
    assert line(figure, "mean").get_marker() == "o"
    (bar,) = group(figure, "band")
    assert isinstance(bar, LineCollection)
    row = run.rounds.iloc[0] * 100
    low, high = bar.get_segments()[0][:, 1]
    assert low == pytest.approx(row["score_mean"] - row["score_std"])
    assert high == pytest.approx(row["score_mean"] + row["score_std"])


@pytest.mark.parametrize("name", ["never_evaluated", "just_started"])
def test_a_run_without_evaluation_says_so(page: Page, name: str) -> None:
    assert "no round was evaluated" in words(page("accuracy", name))


def test_validation_of_a_round_that_was_never_summed_up_is_left_out(
    tables: dict[str, RunTables],
) -> None:
    run = tables["typical"]
    shown = line(accuracy(replace(run, rounds=run.rounds.iloc[:3])), "validation")
    assert list(np.asarray(shown.get_xdata())) == [1, 2, 3]


def test_a_run_without_validation_has_no_validation_line(
    copy: Callable[[str], Path],
) -> None:
    folder = copy("typical")
    rows = pd.read_csv(folder / "clients.csv")
    rows[rows["split"] == "test"].to_csv(folder / "clients.csv", index=False)
    figure = accuracy(RunTables.read(folder))
    assert not group(figure, "validation")
    assert not any(word.startswith("val.") for word in words(figure))
