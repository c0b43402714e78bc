"""Runs scored by the mean absolute error: every direction turned, worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fedtsd.errors import InputError, RunFolderError
from fedtsd.report.ablation import differences
from fedtsd.report.accuracy import accuracy, validation_mean
from fedtsd.report.budget import budget, budget_table
from fedtsd.report.comparison import comparisons
from fedtsd.report.figures import FIGURES, RESULT_FIGURES
from fedtsd.report.gain import gain_table
from fedtsd.report.measures import alone
from fedtsd.report.pairs import paired_tests
from fedtsd.report.personal import BestFixed, best_fixed
from fedtsd.report.ranks import cells, friedman, mean_ranks
from fedtsd.report.results import Results
from fedtsd.report.statistics import recommended, verdict
from fedtsd.report.tables import RunTables
from fedtsd.score import ACCURACY, MAE
from tests.report.drawn import group, words
from tests.report.runs import RunBuilder, write_sweep
from tests.report.small import small
from tests.report.sweeps import dirichlet, write

Swept = Callable[[str], Results]
ERRORS = {
    "local": {"s": [4.0, 5.0], "t": [8.0, 8.0]},
    "fedavg": {"s": [3.0, 6.0], "t": [9.0, 9.0]},
    "fedtsdp": {"s": [2.0, 3.0], "t": [7.0, 8.0]},
}


def set_errors(run: Path, curve: dict[int, float]) -> None:
    """Let a run have been evaluated at these rounds, with these mean errors, alone."""
    rounds = pd.read_csv(run / "rounds.csv")
    rounds["mae_mean"] = rounds["round"].map(lambda at: curve.get(at, np.nan))
    rounds.to_csv(run / "rounds.csv", index=False)
    summary = json.loads((run / "summary.json").read_text())
    summary["last"]["mae_mean"] = curve[max(curve)]
    (run / "summary.json").write_text(json.dumps(summary))


def test_the_smallest_error_has_rank_one() -> None:
    results = small(ERRORS, score=MAE)
    # Cells s0, s1, t0, t1: fedtsdp 1, 1, 1, 1.5; local 3, 2, 2, 1.5; fedavg 2, 3, 3, 3.
    ranks = mean_ranks(cells(results), MAE.higher_is_better)
    assert ranks.to_dict() == {"local": 2.125, "fedavg": 2.75, "fedtsdp": 1.125}
    blocks = {method: {"s": [base + i for i in range(6)]} for method, base in (
        ("local", 2.0), ("fedavg", 3.0), ("fedtsdp", 1.0),
    )}  # fmt: skip
    test = friedman(small(blocks, score=MAE))
    assert test is not None
    assert test.ranks.to_dict() == {"fedtsdp": 1.0, "local": 2.0, "fedavg": 3.0}


def test_tables_mark_the_smallest_error_and_the_largest_reduction() -> None:
    tables = {table.measure.name: table for table in comparisons(small(ERRORS, score=MAE))}
    errors = tables["mae"].printed()
    assert errors.texts.iloc[:, 0].tolist() == ["4.50 ± 0.71", "4.50 ± 2.12", "2.50 ± 0.71"]
    assert errors.marks.iloc[:, 0].tolist() == ["second", "second", "best"]
    assert errors.marks["rank"].tolist() == ["second", "", "best"]
    assert errors.caption.startswith(
        "Mean absolute error (lower is better), last round, mean over clients with equal weight."
    )
    worst = tables["worst_decile"]
    assert worst.mean.loc["local", "s"] == pytest.approx(4.6)
    assert worst.printed().marks.iloc[:, 1].tolist() == ["second", "", "best"]
    gains = tables["gain"].printed()
    assert gains.texts.iloc[:, 1].tolist() == ["−1.00 ± 0.00", "+0.50 ± 0.71"]
    assert gains.marks.iloc[:, 1].tolist() == ["second", "best"]
    assert gains.caption.startswith("Reduction of the mean absolute error against Local only")


def test_paired_tests_count_smaller_errors_as_won() -> None:
    tests = paired_tests(small(ERRORS, score=MAE), "fedtsdp").set_index("method")
    assert tests.loc["fedavg", ["wins", "ties", "losses"]].tolist() == [4, 0, 0]
    assert tests.loc["local", ["wins", "ties", "losses"]].tolist() == [3, 1, 0]
    assert tests.loc["fedavg", "mean_difference"] == pytest.approx((1 + 3 + 2 + 1) / 4)
    assert tests.loc["fedavg", "effect"] == 1.0


def test_sentences_speak_of_less_error() -> None:
    errors = {"fedavg": {"s": [2.0 + i / 10 for i in range(8)]}, "fedtsdp": {"s": [1.0] * 8}}
    text = " ".join(verdict(small(errors, score=MAE), "fedtsdp"))
    assert "Reported: mean absolute error, last round." in text
    assert "FedTSDP is significantly more accurate than FedAvg: 1.35 less error" in text
    text = " ".join(verdict(small(errors, score=MAE), "fedavg"))
    assert "FedAvg is significantly less accurate than FedTSDP: 1.35 more error" in text
    assert "points" not in text


def test_the_method_of_the_smallest_error_is_recommended() -> None:
    errors = {"local": {"s": [5.0]}, "fedavg": {"s": [4.0]}}
    assert recommended(small(errors, score=MAE)) == "fedavg"
    assert recommended(small(errors, score=ACCURACY)) == "local"
    apart = {"local_a": {"s": [5.0]}, "local_b": {"s": [4.0]}, "fedavg": {"s": [4.0]}}
    assert alone(small(apart, score=MAE)) == "local_b"


def test_ablations_are_ordered_from_the_largest_reduction() -> None:
    errors = {"fedavg": {"s": [3.0]}, "fedper": {"s": [1.0]}, "fedtsdp": {"s": [2.0]}}
    found = differences(small(errors, score=MAE), "fedtsdp", ["fedavg", "fedper"])
    assert list(found.columns) == ["fedper", "fedavg"]
    assert found.iloc[0].tolist() == [1.0, -1.0]


def test_runs_that_are_scored_otherwise_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "a", ("fedavg",), seeds=(0,), rounds=1)
    write(tmp_path / "b", ("fedavg",), seeds=(1,), rounds=1, regression=True)
    with pytest.raises(
        RunFolderError, match=r"not scored alike: .*a/.* by accuracy, .*b/.* by mae"
    ):
        Results.read([tmp_path])
    assert Results.read([tmp_path / "b"]).score is MAE


def test_a_score_unheard_of_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, ("fedavg",), seeds=(0,), rounds=1)
    path = tmp_path / "fedavg-0-0" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metric": "r2"}))
    with pytest.raises(RunFolderError, match=r"summary.json is broken: metric: must be one of"):
        Results.read([tmp_path])


def test_tables_hold_scores_under_one_name(tables: dict[str, RunTables]) -> None:
    run = tables["regression"]
    stored = pd.read_csv(run.folder / "rounds.csv")
    assert run.score is MAE
    assert run.rounds["score_worst10"].tolist() == stored["mae_worst10"].tolist()
    assert (run.rounds["score_worst10"] > run.rounds["score_mean"]).all()
    assert (run.clients["rmse"] > run.clients["score"]).all()


def test_clients_gain_what_their_error_falls(tmp_path: Path) -> None:
    for method, lead in (("local", 0.0), ("fedavg", 0.1)):
        builder = RunBuilder(clients=3, groups=1, rounds=2, method=method, tests=False, lead=lead)
        builder.regression = True
        builder.write(tmp_path / method)
    table = gain_table(Results.read([tmp_path]))
    assert (table["score"] < table["alone"]).all()
    assert table["gain"].to_numpy() == pytest.approx(5.0)  # 0.1 of accuracy is 5 of error


def test_the_budget_is_that_of_an_error_5_percent_above_the_smallest(tmp_path: Path) -> None:
    write(tmp_path, seeds=(0,), regression=True)
    set_errors(tmp_path / "fedavg-0-0", {2: 30.0, 4: 22.0, 6: 21.0})
    set_errors(tmp_path / "fedtsdp-0-0", {2: 30.0, 4: 20.9, 6: 20.0})
    set_errors(tmp_path / "local-0-0", {2: 40.0, 4: 30.0, 6: 25.0})
    results = Results.read([tmp_path])
    table = budget_table(results).set_index("method")
    assert table["target"].to_numpy() == pytest.approx(21.0)
    assert table["rounds"].fillna(-1).to_dict() == {"local": -1, "fedavg": 6, "fedtsdp": 4}
    assert budget_table(results, target=23.0).set_index("method").loc["fedavg", "rounds"] == 4
    assert "to reach 21.0 MAE (105 % of the best)" in words(budget(results))
    with pytest.raises(InputError, match="target: must be above 0, got -1"):
        budget_table(results, target=-1.0)


def test_the_best_fixed_number_of_layers_has_the_smallest_error(tmp_path: Path) -> None:
    for layers, pair in {1: (21.0, 24.0), 2: (20.0, 22.0), 3: (21.0, 22.5)}.items():
        changes = {"personalization": {"_target_": "a.LastLayers", "layers": layers}}
        options = {"changes": changes, "rounds": 2, "regression": True}
        place = write(tmp_path / f"p{layers}", ("fedper",), (dirichlet(1.0),), **options)
        for seed in (0, 1):
            set_errors(place / f"fedper-0-{seed}", {2: pair[seed]})
    # The standard error of the best, 20 and 22, is 1: 21.75 lies within it, 22.5 does not.
    (found,) = best_fixed(Results.read([tmp_path])).values()
    assert found == BestFixed(2, (2, 3))


def test_the_worst_tenth_has_the_largest_errors(swept: Swept) -> None:
    results = swept("regression").only(swept("regression").settings[:1])
    figure = RESULT_FIGURES["clients"](results)
    for mark, method in zip(group(figure, "worst"), results.methods, strict=True):
        rows = results.clients[results.clients["method"] == method]["score"]
        assert mark.get_xdata() == pytest.approx(rows.nlargest(2).mean())  # 2 of 12
    (tenth,) = group(figure, "tenth")
    assert (tenth.get_y(), tenth.get_height()) == (90.0, 10.0)


def test_the_curve_of_one_run_is_its_error(tables: dict[str, RunTables]) -> None:
    run = tables["regression"]
    figure = accuracy(run)
    (mean,) = group(figure, "mean")
    assert mean.get_ydata() == pytest.approx(run.rounds["score_mean"].to_numpy())
    assert figure.axes[0].get_ylabel() == "MAE\n(lower is better)"
    assert figure.axes[0].get_ylim()[1] > run.rounds["score_worst10"].max()
    val = run.clients.query("split == 'val' and stage == 'personalized'")
    expected = val.groupby("round")["score"].mean()
    assert validation_mean(run).to_numpy() == pytest.approx(expected.to_numpy())


def drawn(swept: Swept, name: str, sweep: str) -> Figure:
    if name == "ablation":
        return RESULT_FIGURES[name](swept(sweep), base="fedtsdp")  # type: ignore[call-arg]
    return RESULT_FIGURES[name](swept(sweep))


@pytest.mark.parametrize("sweep", ["regression", "newcomers"])
@pytest.mark.parametrize("name", RESULT_FIGURES)
def test_every_figure_across_runs_is_drawn_in_the_words_of_its_score(
    swept: Swept, name: str, sweep: str
) -> None:
    if name == "critical_difference" and sweep == "newcomers":
        return  # two settings and two seeds are too few
    shown = " ".join(words(drawn(swept, name, sweep)))
    if sweep == "regression":
        assert "accuracy" not in shown
        assert "points" not in shown
        assert (
            "MAE" in shown or "error" in shown or name in ("personal_layers", "critical_difference")
        )


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("variant", ["regression", "joined", "kept_out"])
def test_every_figure_of_a_run_is_drawn(
    page: Callable[[str, str], Figure], name: str, variant: str
) -> None:
    assert "accuracy" not in " ".join(words(page(name, variant))) or variant == "joined"


def test_figures_of_runs_that_are_scored_by_accuracy_say_so(swept: Swept) -> None:
    assert "test accuracy (%)" in words(RESULT_FIGURES["rounds"](swept("newcomers")))


def test_a_report_of_a_regression_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fedtsd.report.command import report_command

    write_sweep(tmp_path, alphas=(0.1,), seeds=(0,), clients=8, rounds=6, regression=True)
    assert report_command([str(tmp_path), "report.target=30", "report.lang=ja"]) == 0
    found = {path.name for path in (tmp_path / "report/tables").iterdir()}
    assert {"mae.csv", "mae.md", "mae.tex", "gain.csv", "worst_decile.md", "budget.csv"} <= found
    assert "mae" in pd.read_csv(tmp_path / "report/tables/runs.csv").columns
    assert "mean absolute error" in capsys.readouterr().out
