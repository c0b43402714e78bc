import json
from pathlib import Path

import pandas as pd
import pytest

from fedtsd.report.comparison import write_tables
from fedtsd.report.latex import escape, latex
from fedtsd.report.results import Results
from fedtsd.report.setting_table import printed_settings, setting_table
from tests.report.sweeps import dirichlet, write

TOLD = {"label_js": 0.3, "label_emd": 0.9, "size_gini": 0.2, "size_min": 11, "size_max": 90}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two settings; that of alpha 1 tells its skew, two seeds with 0.3 and 0.5."""
    folder = tmp_path_factory.mktemp("sweep")
    write(folder, ("fedavg", "local"), (dirichlet(1.0), dirichlet(0.1)), (0, 1), rounds=1)
    for run in folder.glob("*-0-*"):
        seed = int(run.name[-1])
        summary = json.loads((run / "summary.json").read_text())
        summary["skew"] = {**TOLD, "label_js": 0.3 + 0.2 * seed, "input_shift": 0.0}
        (run / "summary.json").write_text(json.dumps(summary))
    return Results.read([folder])


def test_a_row_per_setting_has_mean_and_spread_over_seeds_not_methods(results: Results) -> None:
    table = setting_table(results).set_index("setting")
    row = table.loc["Dirichlet α = 1"]
    assert (row["seeds"], row["clients"]) == (2, 6)
    assert row["label_js"] == pytest.approx(0.4)
    assert row["label_js_std"] == pytest.approx(0.2 / 2**0.5)
    assert row["size_gini_std"] == 0
    other = table.loc["Dirichlet α = 0.1"]
    runs = results.find(method="local", setting="Dirichlet α = 0.1")
    assert other["label_js"] == pytest.approx(sum(run.skew for run in runs) / 2)
    sizes = [run.tables.train_counts.sum(axis=1).max() for run in runs]
    assert other["size_max"] == pytest.approx(sum(sizes) / 2)


def test_it_is_printed_without_columns_that_say_nothing(results: Results) -> None:
    printed = printed_settings(setting_table(results))
    assert printed.texts.loc["Dirichlet α = 1", "label JS"] == "0.40 ± 0.14"
    assert printed.texts.loc["Dirichlet α = 1", "sizes Gini"] == "0.20"
    assert printed.texts.loc["Dirichlet α = 1", "samples max"] == "90"
    assert printed.texts.loc["Dirichlet α = 1", "classes per client"] == "—"
    assert "input shift" not in printed.texts
    assert "over 2 seeds" in printed.caption
    assert r"$\alpha$" in latex(printed)
    assert escape("log-normal σ = 1, rotated up to 90°, 30 %") == (
        r"log-normal $\sigma$ = 1, rotated up to 90$^\circ$, 30 \%"
    )


def test_a_shift_has_a_column_and_is_explained(results: Results) -> None:
    table = setting_table(results).assign(input_shift=[0.5, 0.0], label_shift=float("nan"))
    printed = printed_settings(table)
    assert list(printed.texts["input shift"]) == ["0.50", "0.00"]
    assert "label shift" not in printed.texts
    assert "Input shift: change of inputs" in printed.caption


def test_the_table_is_among_those_of_a_report(results: Results, tmp_path: Path) -> None:
    paths = write_tables(results, tmp_path)
    assert {"settings.csv", "settings.md", "settings.tex"} <= {path.name for path in paths}
    table = pd.read_csv(tmp_path / "settings.csv")
    assert list(table["setting"]) == results.settings
