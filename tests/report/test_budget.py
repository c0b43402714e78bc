import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from fedtsd.errors import InputError
from fedtsd.report.across import NotApplicableError
from fedtsd.report.budget import OFFICE, budget, budget_table
from fedtsd.report.budget_key import _short
from fedtsd.report.cost import Site
from fedtsd.report.results import Results
from tests.report.drawn import group, words
from tests.report.sweeps import set_accuracy, write

# 1 Mbit/s up, no time on the way down, and clients that work in no time.
SLOW_LINE = Site(upload=1, download=1e12, slowdown=1e-12)


def set_traffic(run: Path, up: int, down: int) -> None:
    """Let each client send `up` and receive `down` bytes in each round."""
    rows = pd.read_csv(run / "traffic.csv").assign(bytes_up=up, bytes_down=down)
    rows.to_csv(run / "traffic.csv", index=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six clients, six rounds: FedAvg sends much, FedTSDP little, local nothing."""
    write(tmp_path, seeds=(0, 1))
    for seed in (0, 1):
        set_accuracy(tmp_path / f"fedavg-0-{seed}", {2: 0.4, 4: 0.7 + 0.1 * seed, 6: 0.9})
        set_accuracy(tmp_path / f"fedtsdp-0-{seed}", {2: 0.5, 4: 0.8, 6: 1.0})
        set_accuracy(tmp_path / f"local-0-{seed}", {2: 0.6, 4: 0.7, 6: 0.7})
        set_traffic(tmp_path / f"fedavg-0-{seed}", 500_000, 1_500_000)
        set_traffic(tmp_path / f"fedtsdp-0-{seed}", 125_000 * (1 + seed), 0)
        set_traffic(tmp_path / f"local-0-{seed}", 0, 0)
    return tmp_path


def test_what_it_takes_to_reach_a_target_by_hand(folder: Path) -> None:
    table = budget_table(Results.read([folder]), SLOW_LINE, target=0.75).set_index("method")
    # FedAvg is at (70 + 80) / 2 = 75 % after round 4: 4 x 6 clients x 2 MB, 4 x 4 Mbit at 1 Mbit/s.
    fedavg = table.loc["fedavg", ["megabytes", "simulated_seconds", "rounds"]]
    assert fedavg.tolist() == pytest.approx([48.0, 16.0, 4])
    # FedTSDP's seeds send 1 and 2 Mbit per client and round: the mean after 4 rounds.
    fedtsdp = table.loc["fedtsdp", ["megabytes", "simulated_seconds", "rounds"]]
    assert fedtsdp.tolist() == pytest.approx([4 * 6 * (0.125 + 0.25) / 2, 4 * 1.5, 4])
    assert table.loc["local", ["megabytes", "simulated_seconds", "rounds"]].isna().all()
    assert table["target"].tolist() == [0.75] * 3


def test_a_method_that_sends_nothing_reaches_a_target_for_nothing(folder: Path) -> None:
    table = budget_table(Results.read([folder]), target=0.6).set_index("method")
    assert table.loc["local", "megabytes"] == 0
    assert table.loc["local", "rounds"] == 2


def test_the_target_is_95_percent_of_the_best_last_accuracy(folder: Path) -> None:
    results = Results.read([folder])
    table = budget_table(results).set_index("method")
    assert table["target"].tolist() == pytest.approx([0.95] * 3)
    assert table["rounds"].dropna().to_dict() == {"fedtsdp": 6}
    assert "to reach 95.0 % (95 % of the best)" in words(budget(results))
    assert "to reach 75.0 %" in words(budget(results, target=0.75))


def test_curves_stand_over_what_was_spent_so_far(folder: Path) -> None:
    figure = budget(Results.read([folder]), SLOW_LINE, 0.75)
    expected = {
        "megabytes fedavg": [24, 48, 72],
        "simulated_seconds fedavg": [8, 16, 24],
        "megabytes fedtsdp": [2.25, 4.5, 6.75],
    }
    for gid, spent in expected.items():
        (line,) = group(figure, gid)
        assert isinstance(line, Line2D)
        np.testing.assert_allclose(line.get_xdata(), spent, rtol=1e-6)
    rings = group(figure, "reached fedavg")
    assert [float(ring.get_xdata()[0]) for ring in rings] == pytest.approx([48, 16])
    assert [float(ring.get_ydata()[0]) for ring in rings] == pytest.approx([75, 75])
    assert not group(figure, "reached local")
    assert [float(line.get_ydata()[0]) for line in group(figure, "target")] == [75, 75]


def test_who_sends_nothing_is_a_level_line(folder: Path) -> None:
    figure = budget(Results.read([folder]))
    assert not group(figure, "megabytes local")
    assert len(group(figure, "simulated_seconds local")) == 1
    (level,) = group(figure, "level local")
    assert list(level.get_ydata()) == pytest.approx([70.0, 70.0])


def test_the_list_names_each_cost_the_cheapest_first(folder: Path) -> None:
    shown = words(budget(Results.read([folder]), SLOW_LINE, 0.75))
    names = [word for word in shown if word in ("FedTSDP", "FedAvg", "Local only")]
    assert names == ["FedTSDP", "FedAvg", "Local only"]
    assert {"4.50", "6.00", "48.0", "16.0", "never"} <= set(shown)
    assert shown.count("never") == 1


def test_the_axis_is_logarithmic_where_totals_differ_tenfold(
    folder: Path, swept: Callable[[str], Results]
) -> None:
    for seed in (0, 1):
        shutil.rmtree(folder / f"local-0-{seed}")
    apart = budget(Results.read([folder]), SLOW_LINE)  # 72 and 6.75 MB; 24 and 9 s
    assert [ax.get_xscale() for ax in apart.axes[:2]] == ["log", "linear"]
    assert apart.axes[1].get_xlim()[0] == 0
    alike = budget(swept("severities"))
    assert {ax.get_xscale() for ax in alike.axes} == {"linear"}


def test_the_page_says_which_line_and_machine_are_assumed(folder: Path) -> None:
    title = " ".join(words(budget(Results.read([folder]), Site(2, 8, 3)))).replace("\n", " ")
    assert "2 Mbit/s up, 8 down, machines 3 × slower" in title
    assert OFFICE.slowdown > 1


@pytest.mark.parametrize("target", [0.0, 1.2, 75.0])
def test_a_target_is_a_fraction(folder: Path, target: float) -> None:
    with pytest.raises(InputError, match="target: must be above 0 and at most 1, got"):
        budget_table(Results.read([folder]), target=target)
    with pytest.raises(InputError, match="target: must be above 0 and at most 1, got"):
        budget(Results.read([folder]), target=target)


def test_runs_without_traffic_are_left_out(folder: Path) -> None:
    for seed in (0, 1):
        (folder / f"local-0-{seed}/traffic.csv").unlink()
    results = Results.read([folder])
    assert "Local only" not in words(budget(results))
    assert budget_table(results, target=0.6).set_index("method").loc["local"].isna()["megabytes"]
    for path in folder.glob("*/traffic.csv"):
        path.unlink()
    with pytest.raises(NotApplicableError, match=r"needs a run with traffic\.csv"):
        budget(Results.read([folder]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (np.nan, "never")],
)
def test_costs_are_short(value: float, text: str) -> None:
    assert _short(value) == text
