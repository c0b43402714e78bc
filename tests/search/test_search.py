"""Searches over a made-up run whose accuracies are a formula, and one over real runs."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from fedtsd.compose import digest
from fedtsd.errors import FedtsdError, InputError, RunFolderError
from fedtsd.launch import run_cell
from fedtsd.score import ACCURACY, MAE, Score
from fedtsd.search import command as search_module
from fedtsd.search import plan as plan_module
from fedtsd.search import search_command
from fedtsd.search.command import search
from fedtsd.search.plan import plan_search
from fedtsd.search.results import Row, best_of, command, validation_score
from fedtsd.search.trials import JOURNAL, alone_in

SPACE = ["training.lr=tag(log,interval(0.001,1))", "training.epochs=range(1,5)"]


class MadeUp:
    """A `run_cell` without training: validation accuracy is best at lr 0.1, 3 epochs, seed 0.

    Test accuracy runs the other way, so that a search that reads it goes astray. In regression the
    error is what accuracy lacks to 1.
    """

    def __init__(
        self, interrupt_at: int = 0, fail_above: float = 1e9, score: Score = ACCURACY
    ) -> None:
        self.asked: list[list[str]] = []
        self.score = score
        self.interrupt_at = interrupt_at
        self.fail_above = fail_above

    def __call__(self, overrides: list[str], root: Path) -> Path:
        self.asked.append(overrides)
        if len(self.asked) == self.interrupt_at:
            raise KeyboardInterrupt
        given = dict(text.split("=") for text in overrides)
        lr, epochs = float(given["training.lr"]), int(given.get("training.epochs", 3))
        if lr > self.fail_above:
            raise FedtsdError("runs/x: ProtocolError: loss is not finite, try a smaller lr")
        accuracy = 0.9 - (abs(lr - 0.1) + abs(epochs - 3) / 10 + int(given["seed"]) / 10) / 2
        value = accuracy if self.score is ACCURACY else 1 - accuracy
        return write_run(root / digest(overrides), value, self.score)


def write_run(path: Path, validation: float | None, score: Score = ACCURACY) -> Path:
    """A run as its summary tells it; the test score runs the other way."""
    path.mkdir(parents=True, exist_ok=True)
    last = {score.mean: 1 - (validation or 0), score.validation: validation}
    (path / "summary.json").write_text(json.dumps({"last": last}))
    return path


def run(*overrides: str, cell: MadeUp | None = None) -> tuple[int, Path]:
    plan = plan_search([*SPACE, *overrides])
    return search(plan, cell or MadeUp()), plan.folder


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv")


def test_the_objective_is_validation_accuracy_in_the_last_round(tmp_path) -> None:
    assert validation_score(write_run(tmp_path, 0.7), ACCURACY) == 0.7
    with pytest.raises(RunFolderError, match="no client has validation data"):
        validation_score(write_run(tmp_path, None), ACCURACY)


def test_in_regression_a_search_comes_near_the_smallest_validation_error(outputs, capsys) -> None:
    plan = dataclasses.replace(plan_search([*SPACE, "search.trials=25"]), score=MAE)
    assert search(plan, MadeUp(score=MAE)) == 0
    table = trials(plan.folder)
    best = yaml.safe_load((plan.folder / "best.yaml").read_text())
    assert table["validation_mae"].min() < 0.13  # 0.1 at the optimum
    assert best["validation_mae"] == table["validation_mae"].min()
    assert best["test_mae"] == pytest.approx(1 - best["validation_mae"])
    assert best["rule"].startswith("chosen by validation MAE")
    assert f"validation MAE {best['validation_mae']:.4f}" in capsys.readouterr().out


def test_a_search_comes_near_the_best_and_reports_it(outputs, capsys) -> None:
    code, folder = run("search.trials=25", "search.seeds=[0,2]")
    assert code == 0
    table, best = trials(folder), yaml.safe_load((folder / "best.yaml").read_text())
    assert len(table) == 25
    assert table["validation_accuracy"].max() > 0.82  # 0.85 is the mean over seeds at the optimum
    row = table.loc[table["validation_accuracy"].idxmax()]
    assert best["trial"] == row["trial"]
    assert best["validation_accuracy"] == row["validation_accuracy"]
    # By the formula, with the values that are reported: mean over seeds 0 and 2.
    lr, epochs = best["parameters"]["training.lr"], best["parameters"]["training.epochs"]
    expected = 0.9 - (abs(lr - 0.1) + abs(epochs - 3) / 10 + 0.1) / 2
    assert best["validation_accuracy"] == pytest.approx(expected)
    assert best["test_accuracy"] == pytest.approx(1 - expected)
    assert set(best["importance"]) == {"training.lr", "training.epochs"}
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-2:] == [best["command"], str(folder)]
    assert best["command"] == (
        f"fedtsd train -m training.epochs={epochs} training.lr={lr} seed=0,2"
    )
    assert len(captured.err.splitlines()) == 1 + 25


def test_a_command_from_scratch_gives_the_same_trials(outputs, monkeypatch) -> None:
    _, first = run("search.trials=13", "search.startup_trials=4")
    (outputs / "again").mkdir()
    monkeypatch.chdir(outputs / "again")
    plan = plan_search([*reversed(SPACE), "search.trials=13", "search.startup_trials=4"])
    search(plan, MadeUp())
    assert plan.folder == first
    for name in ("trials.csv", "best.yaml"):
        assert (outputs / first / name).read_bytes() == (plan.folder / name).read_bytes()
    _, other = run("search.trials=13", "search.sampler_seed=1")
    assert trials(other)["training.lr"].tolist() != trials(plan.folder)["training.lr"].tolist()


@pytest.mark.parametrize("at", [1, 12])
def test_a_stopped_search_goes_on_as_if_it_had_not_stopped(at: int, outputs, capsys) -> None:
    options = ["search.trials=12", "search.startup_trials=4", "search.seeds=[0,1]"]
    _, whole = run(*options, "search.folder=whole")
    stopped = MadeUp(interrupt_at=at)
    with pytest.raises(KeyboardInterrupt):
        run(*options, "search.folder=parts", cell=stopped)
    assert "stopped; the same command goes on" in capsys.readouterr().err
    # Killed once more right after the start, then left alone.
    with pytest.raises(KeyboardInterrupt):
        run(*options, "search.folder=parts", cell=MadeUp(interrupt_at=1))
    resumed = MadeUp()
    code, parts = run(*options, "search.folder=parts", cell=resumed)
    assert code == 0
    # The trial that was stopped comes first, from its first seed on, with the same values.
    assert resumed.asked[0][:-1] == stopped.asked[-1][:-1]
    for name in ("trials.csv", "best.yaml"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_more_trials_extend_a_search(outputs) -> None:
    _, at_once = run("search.trials=9", "search.folder=whole", "search.startup_trials=3")
    _, first = run("search.trials=4", "search.folder=parts", "search.startup_trials=3")
    assert len(trials(first)) == 4
    cell = MadeUp()
    _, second = run("search.trials=9", "search.folder=parts", "search.startup_trials=3", cell=cell)
    assert first == second
    assert len(cell.asked) == 5
    assert (at_once / "trials.csv").read_bytes() == (second / "trials.csv").read_bytes()
    finished = MadeUp()
    run("search.trials=9", "search.folder=parts", "search.startup_trials=3", cell=finished)
    assert finished.asked == []


def test_a_failed_trial_is_a_row_and_the_search_goes_on(outputs, capsys) -> None:
    code, folder = run("search.trials=8", cell=MadeUp(fail_above=0.2))
    table = trials(folder)
    assert code == 0
    assert table["state"].value_counts()["finished"] == 8
    failed = table[table["state"] == "failed"]
    assert len(failed) >= 1
    assert (failed["training.lr"] > 0.2).all()
    assert failed["validation_accuracy"].isna().all()
    assert failed["error"].str.contains("try a smaller lr").all()
    assert "failed" in capsys.readouterr().err


def test_a_search_in_which_everything_fails_ends(outputs, capsys) -> None:
    code, folder = run("search.trials=8", "search.max_failures=3", cell=MadeUp(fail_above=0))
    assert code == 1
    assert trials(folder)["state"].tolist() == ["failed"] * 3
    assert not (folder / "best.yaml").exists()
    captured = capsys.readouterr()
    assert "3 trials failed one after another" in captured.err
    assert "no trial finished" in captured.err
    assert captured.out == ""


def test_a_small_space_is_not_tried_for_ever(outputs, capsys) -> None:
    plan = plan_search(["training.lr=0.1,0.2", "training.epochs=interval(3,4)"])
    assert search(plan, MadeUp()) == 0
    table = trials(plan.folder)
    assert len(table[["training.lr", "training.epochs"]].drop_duplicates()) == 4
    assert "all 4 combinations were tried" in capsys.readouterr().err


def test_no_trial_starts_after_the_timeout(outputs, monkeypatch, capsys) -> None:
    clock = iter(range(0, 10_000, 50))  # a trial takes 50 seconds
    monkeypatch.setattr(search_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    code, folder = run("search.timeout=4")
    assert code == 0
    assert len(trials(folder)) == 4  # asked after 50, 100, 150, 200 seconds; 250 is too late
    assert "4 minutes are over; the same command goes on" in capsys.readouterr().err


def test_what_a_kill_leaves_half_written_is_mended(outputs) -> None:
    options = ["search.trials=6", "search.startup_trials=3"]
    _, whole = run(*options, "search.folder=whole")
    with pytest.raises(KeyboardInterrupt):
        run(*options, "search.folder=parts", cell=MadeUp(interrupt_at=3))
    (parts,) = (outputs / "parts").iterdir()
    with (parts / JOURNAL).open("a") as file:
        file.write('{"op_code":6,"worker')
    (parts / f"{JOURNAL}.lock").write_text("")
    started = time.monotonic()
    run(*options, "search.folder=parts")
    assert time.monotonic() - started < 20  # optuna waits 30 seconds for such a lock
    assert (parts / "trials.csv").read_bytes() == (whole / "trials.csv").read_bytes()


def test_two_searches_do_not_share_a_folder(outputs) -> None:
    _, folder = run("search.trials=2", "search.name=mine")
    assert folder == Path("outputs/search/mine")
    with alone_in(folder), pytest.raises(InputError, match="another search is at work here"):
        run("search.trials=3", "search.name=mine")
    with pytest.raises(InputError) as caught:
        run("search.trials=3", "search.name=mine", "search.seeds=[4]")
    assert str(caught.value) == (
        "search.name: outputs/search/mine holds another search, its seeds is [0] instead of [4]"
    )
    with pytest.raises(InputError, match="its config is"):
        run("search.trials=3", "search.name=mine", "rounds=7")


def test_what_changes_no_result_is_no_other_search(outputs) -> None:
    plans = [plan_search([*SPACE, *others]) for others in (
        [], ["search.trials=50", "checkpoint_every=2"], ["rounds=20"], ["rounds=21"],
    )]  # fmt: skip
    assert plans[0].folder == plans[1].folder == plans[2].folder != plans[3].folder
    assert plans[0].folder.name.startswith("epochs-lr-")


def test_of_equal_trials_the_first_is_best() -> None:
    rows = [Row(1, {}, (), (), "failed"), *(Row(n, {}, (0.5,), (), "") for n in (2, 3))]
    assert best_of(rows, ACCURACY) is best_of(rows, MAE) is rows[1]
    assert best_of(rows[:1], ACCURACY) is None


def test_the_best_error_is_the_smallest() -> None:
    rows = [Row(n, {}, (value,), (), "") for n, value in enumerate((0.5, 0.2, 0.9), start=1)]
    assert (best_of(rows, ACCURACY), best_of(rows, MAE)) == (rows[2], rows[1])


def test_the_command_line_of_a_trial_can_be_pasted() -> None:
    row = Row(1, {"model.hidden": "[8, 16]", "method": "fedper"}, (0.5,), (), "")
    line = "fedtsd train rounds=3 'model.hidden=[8, 16]' method=fedper seed=4"
    assert command(["rounds=3"], row, [4]) == line


ERRORS = [
    (["search.trials=0"], "search.trials: must be at least 1, got 0"),
    (["search.trials=many"], "search.trials: must be a whole number, got 'many'"),
    (["search.trials=interval(1,2)"], "search.trials: must be a whole number, got 'interval(1,2)'"),
    (["search.trails=3"], "key 'search.trails' is unknown; did you mean search.trials?"),
    (["search.seeds=3"], "search.seeds: must be a list such as [1, 2], got 3"),
    (["search.seeds=[]"], "search.seeds: must be different whole numbers from 0 on, got []"),
    (["search.seeds=0,0"], "search.seeds: must be different whole numbers"),
    (["search.seeds=[-1]"], "search.seeds: must be different whole numbers"),
    (["search.sampler_seed=-1"], "search.sampler_seed: must be at least 0"),
    (["search.timeout=0"], "search.timeout: must be null or above 0, got 0"),
    (["search.name=../x"], "search.name: must be the name of a folder"),
    (["search=3"], "search"),
    (["-m"], "search: takes overrides alone, got -m"),
    (["rounds"], "rounds"),
    (["rounds=[1"], "[1"),
    (["split.val=0"], "split.val: must be above 0"),
    (["device=interval(0,1)"], "device: must be text, got 0"),
    (["evaluation.local_run=/nowhere"], "evaluation.local_run: /nowhere is not the folder"),
]


@pytest.mark.parametrize(("wrong", "message"), ERRORS)
def test_wrong_input_is_one_line_and_nothing_is_written(wrong, message, outputs) -> None:
    with pytest.raises(InputError) as caught:
        search_command([*SPACE, *wrong])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(outputs.iterdir()) == []


def test_without_optuna_the_extra_is_named(outputs, monkeypatch) -> None:
    monkeypatch.setattr(plan_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        search_command(SPACE)
    assert str(caught.value) == ("search: needs optuna; get it with: pip install 'fedtsd[search]'")


def test_help_lists_every_key(capsys) -> None:
    assert search_command(["--help"]) == 0
    text = capsys.readouterr().out
    assert search_command([]) == 2
    for field in plan_module.SearchOptions.__dataclass_fields__:
        assert f"  search.{field}: " in text


SEARCH = (
    "import sys; from fedtsd.search import search_command; sys.exit(search_command(sys.argv[1:]))"
)


def test_a_search_over_real_runs_survives_a_kill(outputs) -> None:
    args = [
        "training.lr=interval(0.01,0.1)", "method=fedavg", "rounds=12", "checkpoint_every=2",
        "partition.num_clients=6", "search.trials=1", "search.name=real",
    ]  # fmt: skip
    start = [sys.executable, "-W", "error", "-c", SEARCH, *args]
    process = subprocess.Popen(start, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(p.read_text().count("\n") > 4 for p in outputs.glob("**/rounds.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert search(plan_search(args), run_cell) == 0
    (folder,) = (outputs / "outputs/search/real/runs").iterdir()  # it went on in the same folder
    row = trials(outputs / "outputs/search/real").iloc[0]
    clients = pd.read_csv(folder / "clients.csv").query("round == 12 and split == 'val'")
    assert row["validation_accuracy"] == pytest.approx(clients["accuracy"].mean())
    best = yaml.safe_load((outputs / "outputs/search/real/best.yaml").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    assert best["test_accuracy"] == summary["last"]["accuracy_mean"]
    lr = yaml.safe_load((folder / "config.yaml").read_text())["training"]["lr"]
    assert best["parameters"] == {"training.lr": lr}
