import re
from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedtsd.report.across import NotApplicableError
from fedtsd.report.results import Results
from fedtsd.report.spread import clients, panel_columns, panel_rows
from fedtsd.report.style import method_mark
from tests.report.drawn import group, overlaps, texts, words
from tests.report.runs import RunBuilder, write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("spread")
    return Results.read([write_sweep(folder, seeds=(0, 1), alphas=(1.0, 0.1))])


@pytest.fixture(scope="module")
def one(sweep: Results) -> Results:
    return sweep.only(["Dirichlet α = 0.1"])


@pytest.fixture(scope="module")
def figure(one: Results) -> Figure:
    return clients(one)


def pooled(results: Results, method: str) -> list[float]:
    rows = results.clients.query("method == @method")
    return sorted((rows["score"] * 100).tolist())


def test_every_client_of_every_seed_is_a_dot_in_its_method_s_row(
    one: Results, figure: Figure
) -> None:
    for row, method in enumerate(one.methods):
        (dots,) = group(figure, f"clients {method}")
        assert sorted(dots.get_xdata()) == pytest.approx(pooled(one, method))
        assert len(dots.get_xdata()) == 40
        assert np.abs(dots.get_ydata() - row).max() <= 0.25
        assert len(set(dots.get_ydata())) == 40  # no dot hides another
    assert len(group(figure, "violin")) == 3


def test_median_and_worst_tenth_are_those_of_the_pooled_clients(
    one: Results, figure: Figure
) -> None:
    for method, median, worst in zip(
        one.methods, group(figure, "median"), group(figure, "worst"), strict=True
    ):
        values = pooled(one, method)
        assert median.get_xdata()[0] == pytest.approx(np.median(values))
        assert worst.get_xdata()[0] == pytest.approx(np.mean(values[: ceil(len(values) / 10)]))


def test_steps_are_the_share_of_clients_at_or_below(one: Results, figure: Figure) -> None:
    for method in one.methods:
        (line,) = group(figure, f"share {method}")
        values = pooled(one, method)
        assert line.get_drawstyle() == "steps-post"
        for x, y in list(zip(line.get_xdata(), line.get_ydata(), strict=True))[1:]:
            assert y == pytest.approx(100 * np.mean([v <= x for v in values]))
        mark = method_mark(method)
        assert (line.get_color(), line.get_marker()) == (mark.colour, mark.marker)
    (band,) = group(figure, "tenth")
    assert (band.get_y(), band.get_height()) == (0, 10)


def test_the_title_says_what_is_pooled(figure: Figure, one: Results, tmp_path: Path) -> None:
    title = " ".join(figure.get_suptitle().split())
    setting = re.fullmatch(r"Fashion-MNIST, (.*), last round, clients of 2 seeds pooled", title)
    assert setting is not None
    assert re.fullmatch(r"Dirichlet α = 0\.1 \(JS 0\.\d\d\)", setting.group(1))
    RunBuilder(rounds=2).write(tmp_path)
    assert clients(Results.read([tmp_path])).get_suptitle().endswith("clients of one seed")


def test_settings_have_panels_of_their_own_on_one_scale(
    sweep: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = clients(sweep)
    assert shown.get_figwidth() == 7.0
    assert len({ax.get_xlim() for ax in shown.axes}) == 1
    titles = [title.replace("\N{NO-BREAK SPACE}", " ") for title in sweep.titles.values()]
    assert len(titles) == 2
    assert set(titles) <= {word.replace("\n", " ") for word in words(shown)}
    assert overlaps(texts(shown, monkeypatch)) == []


@pytest.mark.parametrize("count", range(1, 7))
def test_there_is_a_place_for_every_setting(count: int) -> None:
    assert panel_columns(count) * panel_rows(count) >= count
    assert panel_columns(count) * panel_rows(count) - count <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"clients": 1, "groups": 1},
        {"clients": 2, "groups": 1},
        {"clients": 100},
        {"dataset": "x" * 45},
        {"changes": {"method": {"label": "A name of a method that is long"}}},
    ],
)
def test_odd_runs_are_drawn_without_overlap(
    options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("local", "fedtsdp"):
        RunBuilder(**{"rounds": 2, "method": method, **options}).write(tmp_path / method)
    shown = clients(Results.read([tmp_path]))
    assert overlaps(texts(shown, monkeypatch)) == []


def test_clients_that_are_all_alike_have_dots_and_no_violin(
    copy: Callable[[str], Path],
) -> None:
    folder = copy("ten")
    path = folder / "clients.csv"
    lines = path.read_text().splitlines()
    column = lines[0].split(",").index("accuracy")
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[column] = "0.5"
    path.write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    shown = clients(Results.read([folder]))
    assert group(shown, "violin") == []
    (dots,) = group(shown, "clients fedper")
    assert list(dots.get_xdata()) == [50.0] * 10


def test_the_legend_covers_nothing(sweep: Results) -> None:
    shown = clients(sweep)
    shown.canvas.draw()
    (legend,) = shown.legends
    for ax in shown.axes:
        assert not legend.get_window_extent().padded(-1).overlaps(ax.get_tightbbox())


def test_without_runs_there_is_no_figure() -> None:
    with pytest.raises(NotApplicableError, match="clients: needs a finished run"):
        clients(Results((), (), "last"))
