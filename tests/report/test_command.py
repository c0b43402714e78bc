import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fedtsd.cli import main
from fedtsd.errors import ConfigError
from fedtsd.report.command import read_options
from fedtsd.report.cost import Site
from tests.report.runs import write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("report") / "sweep", seeds=(0, 1), alphas=(1.0, 0.1))


@pytest.fixture(scope="module")
def report(sweep: Path) -> Path:
    assert main(["report", str(sweep), "report.target=0.5"]) == 0
    return sweep / "report"


def test_a_report_holds_tables_figures_and_the_page(report: Path) -> None:
    names = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    assert names >= {
        "report.en.html", "tables/accuracy.csv", "tables/accuracy.md", "tables/accuracy.tex",
        "tables/worst_decile.csv", "tables/gain.csv", "tables/megabytes.csv", "tables/runs.csv",
        "tables/statistics.csv", "tables/statistics.md", "tables/statistics.tex",
        "tables/budget.csv", "figures/rounds.pdf", "figures/severity.png", "figures/clients.pdf",
        "figures/gain.pdf", "figures/budget.pdf",
    }  # fmt: skip
    assert set(pd.read_csv(report / "tables/budget.csv")["target"]) == {0.5}


def test_another_method_is_judged(sweep: Path, tmp_path: Path) -> None:
    args = [f"report.folder={tmp_path}", "report.reference=fedavg"]
    assert main(["report", str(sweep), *args]) == 0
    assert "Method judged: FedAvg" in (tmp_path / "report.en.html").read_text()
    assert set(pd.read_csv(tmp_path / "tables/statistics.csv")["reference"]) == {"fedavg"}


def test_the_report_does_not_read_itself(report: Path, sweep: Path, capsys) -> None:
    assert main(["report", str(sweep)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("12 finished runs: 3 methods, 2 settings, 2 seeds.")
    assert out[-1] == str(report / "report.en.html")


def test_one_run_gets_its_own_figures_and_a_page_in_japanese(sweep: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sweep / "fedtsdp-0.1-0", tmp_path / "run")
    assert main(["report", str(run), "report.lang=ja"]) == 0
    names = {path.name for path in (run / "report").rglob("*")}
    assert {"report.ja.html", "alluvial.pdf", "hopkins.png", "accuracy.csv"} <= names
    assert "figures" not in {path.name for path in run.iterdir()}  # the run itself is left alone


def test_several_folders_go_to_a_folder_named_by_them(sweep: Path, outputs: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(sweep / f"fedavg-0.1-{int(name == 'b')}", outputs / name)
    assert main(["report", "a", "b"]) == 0
    (first,) = (outputs / "outputs").glob("report-*")
    assert main(["report", "b", "a"]) == 0
    assert list((outputs / "outputs").glob("report-*")) == [first]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["RUN", "report.lang=de"], "report.lang: must be one of en, ja, got 'de'"),
        (["RUN", "report.lnag=en"], "key 'report.lnag' is unknown; did you mean report.lang?"),
        (["RUN", "lang=en"], "key 'lang' is unknown"),
        (["RUN", "--lang"], "key '--lang' is unknown"),
        (["RUN", "report.rule=best"], "report.rule: must be one of last, best_by_validation"),
        (["RUN", "report.target=80"], "report.target: must be null or in (0, 1], got 80"),
        (["RUN", "report.target=[1"], "report.target: '[1' cannot be read"),
        (["RUN", "report.site.upload=0"], "report.site.upload: must be above 0, got 0"),
        (["RUN", "report.site.upload=fast"], "report.site.upload: must be a number, got 'fast'"),
        (["RUN", "report.reference=ditto"], "report.reference: must be one of local, got 'ditto'"),
        (["FAILED"], "there is no finished run to report on"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
    args: list[str], message: str, sweep: Path, outputs: Path, capsys
) -> None:
    run = shutil.copytree(sweep / "local-0.1-0", outputs / "run")
    failed = shutil.copytree(sweep / "local-0.1-1", outputs / "failed")
    (failed / "status.json").write_text(json.dumps({"state": "failed", "error": "x"}))
    before = sorted(outputs.rglob("*"))
    places = {"RUN": str(run), "FAILED": str(failed)}
    assert main(["report", *(places.get(arg, arg) for arg in args)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(outputs.rglob("*")) == before


def test_options_are_typed() -> None:
    options = read_options(["report.site.upload=2", "report.target=0.8"])
    assert options.site == Site(2.0, 50.0, 4.0)
    assert options.target == 0.8
    with pytest.raises(ConfigError, match=r"report\.folder: must be text, got 3"):
        read_options(["report.folder=3"])


def test_help_lists_every_key(capsys) -> None:
    assert main(["report", "--help"]) == 0
    text = capsys.readouterr().out
    for key in ("lang", "rule", "folder", "reference", "target", "upload", "slowdown"):
        assert f"{key}:" in text


def test_neither_torch_nor_pyplot_is_needed(sweep: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from fedtsd.cli import main; "
        f"main(['report', {str(sweep)!r}, 'report.folder={tmp_path / 'out'}']); "
        "sys.stderr.write(' '.join({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_figures_of_folders_are_drawn_again(sweep: Path, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(sweep / "fedtsdp-0.1-0", tmp_path / "run")
    assert main(["figures", str(run), "figure=alluvial,accuracy"]) == 0
    names = {path.name for path in (run / "figures").iterdir()}
    assert names == {"alluvial.pdf", "alluvial.png", "accuracy.pdf", "accuracy.png"}
    cells = {"cells": [{"folder": p.name, "overrides": []} for p in sweep.glob("*-*")]}
    whole = shutil.copytree(sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns("report"))
    (whole / "sweep.json").write_text(json.dumps(cells))
    assert main(["figures", str(whole), "figure=rounds"]) == 0
    assert {path.name for path in (whole / "figures").iterdir()} == {"rounds.pdf", "rounds.png"}
    assert main(["figures", str(run), "figure=alluvail"]) == 2
    assert "did you mean alluvial?" in capsys.readouterr().err
    assert main(["figures", str(run), "profile=quick"]) == 2
