"""Clients that join late or never train, and data that drift, in the figures and tables."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedtsd.errors import RunFolderError
from fedtsd.report.accuracy import accuracy
from fedtsd.report.comparison import compare
from fedtsd.report.figures import RESULT_FIGURES
from fedtsd.report.measures import measures_of
from fedtsd.report.page.grouping import grouping
from fedtsd.report.results import Results
from fedtsd.report.tables import RunTables
from fedtsd.score import MAE
from tests.report.drawn import group, words
from tests.report.runs import RunBuilder
from tests.report.small import small

Swept = Callable[[str], Results]
ERRORS = {"fedavg": {"s": [3.0]}, "fedtsdp": {"s": [2.0]}}


def test_newcomers_have_tables_of_their_own(tmp_path: Path) -> None:
    late = {"clients": [2, 3], "join_round": 4}
    last = {"mae_mean": 6.0, "mae_std": 1.0, "mae_worst10": 7.0, "num_clients": 2}
    results = small(ERRORS, score=MAE, newcomers={**late, "last": last})
    found = {m.name: compare(results, m) for m in measures_of(results)}
    assert found["newcomers"].mean.loc["fedtsdp"].tolist() == [6.0]
    assert found["newcomers_worst_decile"].mean.loc["fedavg"].tolist() == [7.0]
    assert "clients that join late or never train" in found["newcomers"].caption
    assert "newcomers" not in {m.name for m in measures_of(small(ERRORS, score=MAE))}
    assert results.table["score"].tolist() != results.table["newcomers"].tolist()


def test_clusters_are_scored_against_planted_groups(tmp_path: Path) -> None:
    agreement = {"adjusted_rand_index": 0.46, "normalised_mutual_information": 0.67}
    results = small(ERRORS, score=MAE, agreement_with_planted_groups=agreement)
    found = {m.name: compare(results, m) for m in measures_of(results)}
    assert found["adjusted_rand_index"].mean.loc["fedtsdp"].tolist() == [0.46]
    assert found["mutual_information"].mean.loc["fedavg"].tolist() == [0.67]
    unplanted = small(ERRORS, score=MAE, agreement_with_planted_groups=None)
    assert "adjusted_rand_index" not in {m.name for m in measures_of(unplanted)}


def test_a_client_without_a_cluster_is_an_error_but_for_newcomers(
    tables: dict[str, RunTables], copy: Callable[[str], Path]
) -> None:
    run = tables["kept_out"]
    assert (len(run.order), run.num_clients) == (15, 20)
    assert run.train_counts.shape[0] == 15
    own = run.partition.query("split == 'train' and client < 15")["count"].sum()
    assert run.train_counts.sum() == own
    assert len(tables["joined"].order) == 20
    folder = copy("kept_out")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("newcomers: 0.25", "newcomers: 0.0"))
    with pytest.raises(RunFolderError, match="no cluster for client 15"):
        RunTables.read(folder)


def test_joining_is_no_move_between_clusters(tmp_path: Path) -> None:
    builder = RunBuilder(groups=1, newcomers=5, join_round=18, tests=False, outputs=False)
    run = RunTables.read(builder.write(tmp_path / "run"))
    assert grouping(run).late_moves == 0


@pytest.mark.parametrize("name", ["rounds", "accuracy"])
def test_a_line_marks_the_drift(swept: Swept, tables: dict[str, RunTables], name: str) -> None:
    if name == "rounds":
        figure, at = RESULT_FIGURES["rounds"](swept("newcomers")), 3
    else:
        figure, at = accuracy(tables["regression"]), 12
    lines = group(figure, "drift")
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert len(lines) == len(panels)
    assert {line.get_xdata()[0] for line in lines} == {at - 0.5}  # type: ignore[attr-defined]
    assert "drift" in words(figure)


def test_without_drift_there_is_no_line(tables: dict[str, RunTables]) -> None:
    assert group(accuracy(tables["typical"]), "drift") == []
