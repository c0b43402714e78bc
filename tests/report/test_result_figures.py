import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedtsd.errors import InputError
from fedtsd.report.figures import RESULT_FIGURES, NotApplicableError, draw_results
from fedtsd.report.results import Results
from fedtsd.report.style import PAGE
from tests.report.drawn import overlaps, texts
from tests.report.runs import RunBuilder
from tests.report.sweeps import SWEEPS

Swept = Callable[[str], Results]
Page = Callable[[str, str], Figure]
OURS = ("rounds", "severity", "personal_layers", "budget", "ablation")
LEFT_OUT = {  # what a sweep has no data for, or nothing new
    "severities": {"ablation"},
    "twelve_methods": {"severity", "personal_layers", "ablation"},
    "two_data_sets": {"ablation"},
    "many_alphas": {"rounds", "budget", "ablation"},
    "regression": {"ablation"},
    "newcomers": {"ablation"},
    "one_run": {"severity", "personal_layers", "ablation"},
}
CASES = [(f, s) for s in SWEEPS for f in OURS if f not in LEFT_OUT.get(s, set())]


@pytest.fixture(scope="module")
def page(swept: Swept) -> Page:
    """A figure of a sweep, made once: look, but do not change it."""
    return cache(lambda figure, sweep: RESULT_FIGURES[figure](swept(sweep)))


@pytest.mark.parametrize(("figure", "sweep"), CASES)
def test_no_text_lies_on_another_or_leaves_the_page(
    page: Page, monkeypatch: pytest.MonkeyPatch, figure: str, sweep: str
) -> None:
    shown = page(figure, sweep)
    drawn = texts(shown, monkeypatch)
    assert len(drawn) >= 3
    assert overlaps(drawn) == []
    width, height = shown.get_size_inches() * 72
    assert width <= PAGE * 72
    assert height < 10 * 72
    for text, box in drawn:
        assert box.x0 > -0.5, text
        assert box.y0 > -0.5, text
        assert box.x1 < width + 0.5, text
        assert box.y1 < height + 0.5, text


@pytest.mark.parametrize(("figure", "sweep"), CASES)
def test_no_panel_covers_another_and_no_legend_a_panel(page: Page, figure: str, sweep: str) -> None:
    shown = page(figure, sweep)
    panels = [ax.get_position() for ax in shown.axes if ax.get_visible()]
    assert all(box.width > 0.1 and box.height > 0.1 for box in panels)
    assert not any(a.padded(-1e-3).overlaps(b) for a, b in combinations(panels, 2))
    renderer = shown.canvas.get_renderer()
    for legend in shown.legends:
        box = legend.get_window_extent().padded(-1)
        visible = [ax for ax in shown.axes if ax.get_visible()]
        assert not any(box.overlaps(ax.get_tightbbox(renderer)) for ax in visible)


@pytest.mark.parametrize("figure", ["rounds", "severity", "budget"])
def test_methods_are_told_apart_without_colour(page: Page, figure: str) -> None:
    shown = page(figure, "severities")
    lines = [ax.lines for ax in shown.axes]
    looks = {
        line.get_gid().split(" ")[-1]: (line.get_marker(), str(line._unscaled_dash_pattern))
        for panel in lines
        for line in panel
        if line.get_gid() and line.get_gid().startswith(("mean ", "simulated_seconds "))
    }
    assert set(looks) == {"local", "fedavg", "fedtsdp"}
    assert len(set(looks.values())) == 3


def test_a_method_has_one_colour_in_all_figures(page: Page) -> None:
    colours: dict[str, set[str]] = {}
    for figure in ("rounds", "severity", "personal_layers", "budget"):
        for artist in page(figure, "severities").findobj(
            lambda a: isinstance(a, Line2D | PolyCollection | LineCollection)
        ):
            kind, _, method = str(artist.get_gid()).partition(" ")
            if kind in ("mean", "band", "megabytes", "simulated_seconds", "level"):
                raw = (
                    artist.get_color() if isinstance(artist, Line2D) else artist.get_facecolor()[0]
                )
                colours.setdefault(method, set()).add(to_hex(raw))
    assert set(colours) == {"local", "fedavg", "fedtsdp"}
    assert all(len(found) == 1 for found in colours.values())


def test_every_figure_that_applies_is_written_and_the_rest_named_in_the_log(
    swept: Swept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fedtsd")
    paths = draw_results(swept("one_run"), tmp_path / "deep" / "report")
    drawn = {path.stem for path in paths}
    assert {"rounds", "budget"} <= drawn
    assert drawn.isdisjoint(LEFT_OUT["one_run"])
    assert all(path.parent == tmp_path / "deep" / "report" / "figures" for path in paths)
    assert all(path.stat().st_size > 1000 for path in paths)
    for name in LEFT_OUT["one_run"]:
        assert f"not drawn: {name}: needs" in caplog.text


def test_a_named_figure_that_does_not_apply_is_an_error_of_one_line(
    swept: Swept, tmp_path: Path
) -> None:
    with pytest.raises(NotApplicableError, match="severity: needs settings that differ") as error:
        draw_results(swept("one_run"), tmp_path, ["severity"])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="unknown 'roundz'; choose from rounds, severity"):
        draw_results(swept("one_run"), tmp_path, ["roundz"])


def test_results_without_a_finished_run_have_no_figure(tmp_path: Path) -> None:
    RunBuilder(clients=3, rounds=2, evaluate_every=0).write(tmp_path / "never")
    results = Results.read([tmp_path])
    assert results.holes
    for name in OURS:
        with pytest.raises(NotApplicableError, match=f"^{name}: needs"):
            RESULT_FIGURES[name](results)


def test_drawing_again_in_another_process_gives_the_same_bytes(
    swept: Swept, sweep_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    names = ["ablation"]
    here = draw_results(swept("variants"), tmp_path / "here", names)
    code = "from pathlib import Path; from fedtsd.report.results import Results; "
    code += "from fedtsd.report.figures import draw_results; "
    code += f"results = Results.read([Path({str(sweep_folder('variants'))!r})]); "
    code += f"draw_results(results, Path({str(tmp_path / 'there')!r}), {names}); "
    code += "import sys; sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    for path in here:
        again = tmp_path / "there" / "figures" / path.name
        assert again.read_bytes() == path.read_bytes(), path.name


def test_what_was_looked_at_was_not_changed(swept: Swept) -> None:
    before = swept("severities").table.copy()
    RESULT_FIGURES["severity"](swept("severities"))
    assert np.array_equal(before["score"], swept("severities").table["score"])
