from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedtsd.report.across import curve
from fedtsd.report.results import Results
from fedtsd.report.rounds import rounds
from fedtsd.report.style import method_mark
from tests.report.drawn import group, words
from tests.report.sweeps import dirichlet, set_accuracy, write, write_two_seeds

SETTING = "Dirichlet α = 0.1"


def line(figure: Figure, gid: str) -> Line2D:
    (artist,) = group(figure, gid)
    assert isinstance(artist, Line2D)
    return artist


def test_lines_and_bands_are_those_of_the_curve(tmp_path: Path) -> None:
    results = Results.read([write_two_seeds(tmp_path)])
    figure = rounds(results)
    expected = curve(results, "fedavg", SETTING)
    drawn = line(figure, "mean fedavg")
    np.testing.assert_allclose(drawn.get_xdata(), expected["round"])
    np.testing.assert_allclose(drawn.get_ydata(), expected["mean"])
    assert drawn.get_color() == method_mark("fedavg").colour
    (band,) = group(figure, "band fedavg")
    assert isinstance(band, FillBetweenPolyCollection)
    heights = {round(y, 6) for x, y in band.get_paths()[0].vertices if x == 4}
    assert heights == {round(70 - 200**0.5, 6), round(70 + 200**0.5, 6)}
    assert f"FedAvg {80.0}" in words(figure)
    assert any("mean ± 1 std (band) of 2 seeds" in w.replace("\n", " ") for w in words(figure))


def test_one_seed_has_no_band_and_says_so(tmp_path: Path) -> None:
    figure = rounds(Results.read([write(tmp_path, seeds=(4,))]))
    assert not group(figure, "band fedavg")
    assert any("one seed" in word for word in words(figure))


def test_several_settings_share_their_heights_and_are_ordered_by_skew(
    swept: Callable[[str], Results],
) -> None:
    results = swept("severities")
    panels = [ax for ax in rounds(results).axes if ax.get_visible()]
    titles = [title.replace("\N{NO-BREAK SPACE}", " ") for title in results.titles.values()]
    assert [ax.get_title().replace("\n", " ") for ax in panels] == titles
    assert titles[0].startswith(f"{results.settings[0]} (JS 0.")
    assert len({ax.get_ylim() for ax in panels}) == 1


def test_methods_of_different_lengths_keep_their_own_rounds(tmp_path: Path) -> None:
    write(tmp_path, ("fedavg", "fedtsdp"), seeds=(0,), rounds=40)
    set_accuracy(tmp_path / "fedavg-0-0", {10: 0.3, 20: 0.5})
    figure = rounds(Results.read([tmp_path]))
    assert line(figure, "mean fedavg").get_xdata().tolist() == [10, 20]
    assert line(figure, "mean fedtsdp").get_xdata().tolist() == list(range(1, 41))
    assert line(figure, "mean fedtsdp").get_markevery() == 5
    assert figure.axes[0].get_xlim()[1] == pytest.approx(40.4)


def test_a_setting_that_was_never_evaluated_says_so(tmp_path: Path) -> None:
    write(tmp_path, ("fedavg",), (dirichlet(1.0), dirichlet(0.1)), seeds=(0,))
    set_accuracy(tmp_path / "fedavg-0-0", {})
    shown = words(rounds(Results.read([tmp_path])))
    assert "no round was evaluated" in shown
    assert "FedAvg" in shown


def test_too_many_settings_are_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    alphas = tuple(dirichlet(0.1 * (i + 1)) for i in range(14))
    results = Results.read([write(tmp_path, ("fedavg",), alphas, (0,), rounds=1)])
    figure = rounds(results)
    panels = [ax.get_title() for ax in figure.axes if ax.get_visible()]
    assert len(panels) == 12
    assert panels[0].startswith(results.settings[0])
    assert panels[-1].startswith(results.settings[-1])
    assert any("12 of 14 settings" in word for word in words(figure))
