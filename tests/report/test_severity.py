from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from fedtsd.report.across import NotApplicableError
from fedtsd.report.places import axes_of
from fedtsd.report.results import Results
from fedtsd.report.severity import severity
from fedtsd.report.severity_axis import pieces
from tests.report.drawn import group, words
from tests.report.sweeps import GROUPS, IID, write

Swept = Callable[[str], Results]


def test_a_place_has_the_mean_measured_skew_of_its_runs(swept: Swept) -> None:
    results = swept("severities")
    expected = results.table.groupby("setting")["skew"].mean()
    (places,) = axes_of(results).values()
    assert [p.skew for p in places] == [expected[p.setting] for p in places]
    shown = words(severity(results))
    assert all(f"{place.skew:.2f}" in shown for place in places)


@pytest.mark.parametrize(("row", "column"), [(0, "score"), (1, "worst10")])
def test_marks_and_whiskers_are_mean_and_std_over_seeds(
    swept: Swept, row: int, column: str
) -> None:
    results = swept("severities")
    ax = [ax for ax in severity(results).axes if ax.get_ylabel()][row]
    (places,) = axes_of(results).values()
    rows = results.table.query("method == 'fedtsdp'").groupby("setting")[column]
    lines = [line for line in ax.lines if line.get_gid() == "mean fedtsdp"]
    assert [len(line.get_xdata()) for line in lines] == [3, 1, 1, 1]
    drawn = np.concatenate([np.asarray(line.get_ydata()) for line in lines])
    order = [places[i].setting for piece in pieces(places) for i in piece]
    np.testing.assert_allclose(drawn, 100 * rows.mean()[order])
    (whiskers,) = [c for c in ax.collections if c.get_gid() == "std fedtsdp"]
    assert isinstance(whiskers, LineCollection)
    heights = [np.ptp(segment[:, 1]) for segment in whiskers.get_segments()]
    expected = 2 * 100 * rows.std(ddof=1)[[place.setting for place in places]]
    np.testing.assert_allclose(heights, expected)


def test_the_axis_is_broken_on_both_sides_of_the_log_scale_alone(
    swept: Swept, tmp_path: Path
) -> None:
    places = next(iter(axes_of(swept("severities")).values()))
    breaks = group(severity(swept("severities")), "break")
    at = sorted({float(line.get_xdata()[0]) for line in breaks if isinstance(line, Line2D)})
    middle = [(places[0].x + places[1].x) / 2, (places[3].x + places[4].x) / 2]
    assert at == pytest.approx(middle)
    results = Results.read([write(tmp_path, ("fedavg",), (IID, GROUPS), (0,), rounds=1)])
    figure = severity(results)
    assert not group(figure, "break")
    assert "partition" in words(figure)


def test_methods_stand_side_by_side_at_a_place(swept: Swept) -> None:
    figure = severity(swept("severities"))
    firsts = {
        line.get_gid(): float(line.get_xdata()[0])
        for line in figure.axes[0].lines
        if str(line.get_gid()).startswith("mean") and len(line.get_xdata()) == 3
    }
    assert len(set(firsts.values())) == 3
    assert np.mean(list(firsts.values())) == pytest.approx(0.0, abs=1e-9)
    assert max(firsts.values()) < 0.25  # less than half the way to the next place


def test_one_partition_is_no_axis(swept: Swept) -> None:
    with pytest.raises(NotApplicableError, match="differ in the partition alone"):
        severity(swept("twelve_methods"))
