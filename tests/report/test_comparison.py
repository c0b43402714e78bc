import shutil
from pathlib import Path

import pandas as pd
import pytest

from fedtsd.errors import RunFolderError
from fedtsd.report.comparison import Comparison, compare, comparisons, write_tables
from fedtsd.report.measures import gain, measures_of
from fedtsd.report.results import Hole, Results
from tests.report.runs import write_sweep
from tests.report.small import Accuracies, small

TOY: Accuracies = {
    "local": {"mild": [0.60, 0.64], "harsh": [0.80, 0.90]},
    "fedavg": {"mild": [0.70, 0.72], "harsh": [0.50, 0.50]},
    "fedtsdp": {"mild": [0.71, 0.71], "harsh": [0.85, 0.93]},
}


def comparison(name: str, results: Results) -> Comparison:
    return compare(results, next(m for m in measures_of(results) if m.name == name))


def test_mean_and_sample_deviation_by_hand() -> None:
    table = comparison("accuracy", small(TOY))
    assert table.mean.loc["local"].tolist() == pytest.approx([62.0, 85.0])
    assert table.std.loc["local"].tolist() == pytest.approx([8**0.5, 50**0.5])  # ddof 1
    assert table.average.tolist() == pytest.approx([73.5, 60.5, 80.0])
    # Cells (mild 0, mild 1, harsh 0, harsh 1): fedtsdp 1, 2, 1, 1; fedavg 2, 1, 3, 3.
    assert table.rank.to_dict() == {"local": 2.5, "fedavg": 2.25, "fedtsdp": 1.25}
    assert table.blocks == 4


def test_the_table_as_it_is_printed() -> None:
    printed = comparison("accuracy", small(TOY)).printed()
    assert printed.texts.to_dict("split")["data"] == [
        ["62.0 ± 2.8", "85.0 ± 7.1", "73.5", "2.50"],
        ["71.0 ± 1.4", "50.0 ± 0.0", "60.5", "2.25"],
        ["71.0 ± 0.0", "89.0 ± 5.7", "80.0", "1.25"],
    ]
    assert printed.marks.to_dict("split")["data"] == [
        ["second", "second", "second", ""],
        ["best", "", "", "second"],  # 71.0 as printed, like fedtsdp
        ["best", "best", "best", "best"],
    ]
    assert printed.groups == ("Training alone", "One global model", "Clustered")
    assert printed.caption == (
        "Test accuracy (%), last round, mean over clients with equal weight. Mean ± sample "
        "standard deviation over 2 seeds (0, 1). Data: MNIST, 4 clients. Best per setting bold, "
        "second underlined. Average: over settings, where a method has all. Rank: mean over 4 "
        "cells (setting, seed), 1 is best. The best test round is never reported."
    )


def test_gain_is_paired_by_seed_and_leaves_out_the_method_it_counts_from() -> None:
    table = comparison("gain", small(TOY))
    assert list(table.mean.index) == ["fedavg", "fedtsdp"]
    assert table.mean.loc["fedtsdp"].tolist() == pytest.approx([9.0, 4.0])
    assert table.std.loc["fedtsdp", "harsh"] == pytest.approx(2**0.5)  # of 5 and 3, not of both
    assert table.printed().texts.loc["FedAvg", table.titles["harsh"]] == "−35.0 ± 7.1"
    assert "against Local only" in table.caption


def test_gain_needs_the_same_seed_alone() -> None:
    results = small({"local": {"s": [0.5, None]}, "fedavg": {"s": [0.6, 0.9], "t": [0.9]}})
    table = comparison("gain", results)
    assert table.mean.loc["fedavg", "s"] == pytest.approx(10.0)
    assert table.n.loc["fedavg"].tolist() == [1, 0]
    assert table.printed().texts.loc["FedAvg", results.titles["t"]] == "—"


def test_without_a_method_that_trains_alone_there_is_no_gain() -> None:
    results = small({"fedavg": {"s": [0.5]}, "fedtsdp": {"s": [0.6]}})
    assert "gain" not in [table.measure.name for table in comparisons(results)]
    with pytest.raises(RunFolderError, match="no run of a method that trains alone"):
        gain(results)


def test_megabytes_are_compared_but_nobody_wins() -> None:
    total = comparison("megabytes", small(TOY))
    each = comparison("megabytes_per_client", small(TOY))
    assert total.mean.loc["fedavg"].tolist() == [4.0, 4.0]
    assert each.mean.loc["fedavg"].tolist() == [1.0, 1.0]
    assert total.mean.loc["local"].tolist() == [0.0, 0.0]
    assert set(total.printed().marks.to_numpy().ravel()) == {""}
    assert "rank" not in total.printed().texts
    assert total.printed().texts.loc["FedAvg", total.titles["mild"]] == "4.0"
    assert "2 seeds (0, 1), which differ by less than is printed" in total.caption


def test_runs_that_do_not_say_their_bytes_have_no_traffic() -> None:
    results = small({"fedavg": {"s": [0.5]}}, bytes_up=None, clusters=[])
    table = comparison("megabytes", results)
    assert table.printed().texts.loc["FedAvg", table.titles["s"]] == "—"


def test_missing_cells_and_seeds_are_marked_and_counted() -> None:
    holes = [Hole(Path("a"), "failed", (), "NaN"), Hole(Path("b"), "missing", (), None)]
    results = small({"fedavg": {"s": [0.5, 0.6], "t": [0.7, 0.8]}, "fedtsdp": {"s": [0.9]}}, holes)
    table = comparison("accuracy", results)
    printed = table.printed()
    assert printed.texts.loc["FedTSDP"].tolist() == ["90.0†", "—", "—"]
    assert printed.texts.loc["FedAvg", "average"] == "65.0"
    assert "rank" not in printed.texts  # one cell of both is too little
    for words in (
        "—: no value (1 cell).",
        "†: fewer than 2 seeds.",
        "result: 1 failed, 1 missing.",
    ):
        assert words in printed.caption
    assert table.n.loc["fedtsdp"].tolist() == [1, 0]


def test_one_run_has_a_plain_table() -> None:
    printed = comparison("accuracy", small({"fedtsdp": {"s": [0.9]}})).printed()
    assert printed.texts.to_dict() == {"s (JS\N{NO-BREAK SPACE}0.00)": {"FedTSDP": "90.0"}}
    assert printed.groups == ("",)
    assert "One seed per cell (0): no spread." in printed.caption
    assert "bold" not in printed.caption


def test_tables_are_tidy_and_unrounded() -> None:
    tidy = comparison("accuracy", small({"a": {"s": [0.1, 0.2], "t": [0.123456789]}})).tidy()
    assert list(tidy.columns) == ["method", "setting", "mean", "std", "n"]
    assert tidy["mean"].tolist() == pytest.approx([15.0, 12.3456789], abs=1e-12)
    assert tidy["n"].tolist() == [2, 1]
    assert tidy["std"].isna().tolist() == [False, True]


def test_without_a_finished_run_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no finished run"):
        write_tables(small({}), tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"), seeds=(0, 1))


def test_every_table_is_written_three_ways_and_again_with_the_same_bytes(
    sweep: Path, tmp_path: Path
) -> None:
    results = Results.read([sweep])
    paths = write_tables(results, tmp_path / "tables")
    names = ["settings", *(m.name for m in measures_of(results)), "statistics"]
    files = {f"{name}.{kind}" for name in names for kind in ("csv", "md", "tex")} | {"runs.csv"}
    assert (
        {path.name for path in paths} == {p.name for p in (tmp_path / "tables").iterdir()} == files
    )
    moved = Path(shutil.copytree(sweep, tmp_path / "elsewhere/sweep"))
    again = write_tables(Results.read([moved]), tmp_path / "again")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_runs_are_listed_with_folders_below_their_common_one(sweep: Path, tmp_path: Path) -> None:
    write_tables(Results.read([sweep]), tmp_path)
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert len(runs) == 12
    assert all((sweep / folder / "config.yaml").is_file() for folder in runs["folder"])


def test_the_reference_may_be_chosen(sweep: Path, tmp_path: Path) -> None:
    write_tables(Results.read([sweep]), tmp_path, reference="fedavg")
    assert set(pd.read_csv(tmp_path / "statistics.csv")["reference"]) == {"fedavg"}
    text = (tmp_path / "statistics.md").read_text()
    assert text.startswith("- 12 finished runs: 3 methods, 2 settings, 2 seeds.")
    assert "| *Pairs: settings, seeds averaged* |" in text


def test_a_single_run_writes_its_tables_and_an_honest_sentence(sweep: Path, tmp_path: Path) -> None:
    paths = write_tables(Results.read([sweep / "fedtsdp-0.1-0"]), tmp_path)
    assert "statistics.md" in {p.name for p in paths}
    assert "statistics.tex" not in {p.name for p in paths}
    assert (
        "One method: there is nothing to compare it with."
        in (tmp_path / "statistics.md").read_text()
    )
