import json
import logging
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedtsd.catalogue import options
from fedtsd.compose import check, composed
from fedtsd.errors import ConfigError
from fedtsd.run_folder import TABLES
from fedtsd.trackers import tracker
from fedtsd.trackers.tracker import Guarded, ending, numbers, parameters, run_id
from tests.runs import TIME_COLUMNS, Quiet, run_toy, table

SMALL = ("method=fedavg", "rounds=3", "partition.num_clients=4", "model.hidden=[8]")
STATUS = {
    "tensorboard": ("interrupted", "done"),
    "mlflow": ("KILLED", "FINISHED"),
    "wandb": ("interrupted", "done"),
}


@pytest.fixture(scope="module", params=sorted(STATUS))
def tracked(request, tmp_path_factory) -> tuple[str, Path, dict[str, Any]]:
    """A toy of 4 rounds with a real tracker: stopped in round 3, resumed from round 2."""
    folder = tmp_path_factory.mktemp(request.param) / "it's a run"
    command = [sys.executable, "-W", "error", "-m", "tests.tracked", request.param, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return request.param, folder, json.loads(ran.stdout)


def rows_of(records: list[dict[str, Any]], name: str) -> dict[int, float]:
    """One metric over all records; later records replace what earlier ones say of a round."""
    return {round: value for record in records for round, value in record["metrics"][name]}


def test_a_tracker_holds_rounds_csv_though_the_run_was_resumed(tracked) -> None:
    _, folder, found = tracked
    rounds = table(folder, "rounds").set_index("round")
    names = {metric for record in found["done"] for metric in record["metrics"]}
    filled = [column for column in rounds if rounds[column].notna().any()]
    assert names == set(filled)
    for column in set(filled) - {"seconds"}:  # a round that is run twice takes two times
        expected = rounds[column].dropna().to_dict()
        assert rows_of(found["done"], column) == pytest.approx(expected, rel=1e-6), column
    assert sorted(rows_of(found["done"], "seconds")) == [1, 2, 3, 4]


def test_a_resumed_run_goes_on_in_the_same_record(tracked) -> None:
    name, folder, found = tracked
    if name == "wandb":  # two files of one id, which `wandb sync` puts together
        assert {record["id"] for record in found["done"]} == {f"run-{run_id(folder)}"}
        steps = [[step for step, _ in r["metrics"]["samples"]] for r in found["done"]]
        assert steps == [[1, 2, 3], [3, 4]]
    else:
        (record,) = found["done"]
        assert [step for step, _ in record["metrics"]["samples"]] == [1, 2, 3, 4]


def test_a_tracker_knows_how_the_run_ended(tracked) -> None:
    name, _, found = tracked
    ends = (found["stopped"][-1]["status"], found["done"][-1]["status"])
    assert ends == STATUS[name]


def test_a_tracker_holds_the_flat_config(tracked) -> None:
    name, _, found = tracked
    params = found["done"][0]["params"]
    expected = {"training.lr": 0.05, "rounds": 4, "model.hidden": "[8]", "method.name": "fedtsdp"}
    for key, value in expected.items():
        assert params[key] == (str(value) if name == "mlflow" else value), key


def test_trackers_write_into_the_run_folder_alone_and_switch_reports_off(tracked) -> None:
    name, folder, found = tracked
    assert (folder / name).is_dir()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    switches = {
        "tensorboard": set(),
        "mlflow": {"MLFLOW_DISABLE_TELEMETRY"},
        "wandb": {"WANDB_ERROR_REPORTING", "WANDB_CACHE_DIR"},
    }
    assert set(found["environment"]) >= switches[name]


class Fails(Quiet):
    """A record that raises where it is told to."""

    def __init__(self, *where: str) -> None:
        self.where = where
        self.calls: list[str] = []

    def start(self, done: int) -> None:
        self._call("start")

    def round(self, row: Mapping[str, Any]) -> None:
        self._call("round")

    def stop(self) -> None:
        self._call("stop")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.where:
            raise RuntimeError(f"no {name}")


@pytest.mark.parametrize(
    ("where", "calls", "reason"),
    [
        (["start"], ["start", "stop"], "no start"),
        (["round"], ["start", "round", "stop"], "no round"),
        (["stop"], ["start", "round", "round", "round", "stop"], "no stop"),
        (["start", "round", "stop"], ["start", "stop"], "no start"),
    ],
)
def test_a_tracker_that_fails_is_named_once_and_changes_no_table(
    where, calls, reason, config, toy, tmp_path, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fedtsd"), "propagate", True)
    cfg, record = config(*SMALL), Fails(*where)
    run_toy(cfg, toy(4), tmp_path / "alone")
    with caplog.at_level(logging.WARNING, "fedtsd"):
        run_toy(cfg, toy(4), tmp_path / "tracked", Guarded("broken", record))
    assert record.calls == calls
    assert [r.message for r in caplog.records] == [
        f"tracker broken: stopped recording: RuntimeError: {reason}"
    ]
    for name in TABLES:
        alone, tracked = (table(tmp_path / run, name) for run in ("alone", "tracked"))
        shared = [column for column in alone if column not in TIME_COLUMNS]
        pd.testing.assert_frame_equal(alone[shared], tracked[shared], check_exact=True)


def test_a_guard_lets_ctrl_c_through() -> None:
    class Pressed(Quiet):
        def round(self, row: Mapping[str, Any]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded("x", Pressed()).round({"round": 1})


def test_a_tracker_whose_folder_cannot_be_written_ends_no_run(toy, tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    cfg = check(composed([*SMALL, "tracker=tensorboard", f"tracker.folder={tmp_path}/file"]))
    run_toy(cfg, toy(4), tmp_path / "run", cfg.tracker.open({}, tmp_path / "run"))
    assert table(tmp_path / "run", "rounds")["round"].tolist() == [1, 2, 3]


def test_runs_that_share_a_log_directory_stay_apart(toy, tmp_path) -> None:
    shared = tmp_path / "logs"
    cfg = check(composed([*SMALL, "tracker=tensorboard", f"tracker.folder={shared}"]))
    for parent in ("first", "second"):  # two sweeps may name their cells alike
        folder = tmp_path / parent / "cell"
        run_toy(cfg, toy(4), folder, cfg.tracker.open({}, folder))
        assert not (folder / "tensorboard").exists()
    assert len(list(shared.glob("cell-*/events.*"))) == len(list(shared.iterdir())) == 2


def test_numbers_leave_out_the_round_text_and_empty_cells() -> None:
    row = {"round": 3, "accuracy": 0.5, "hopkins": None, "p": math.nan, "n": 2, "name": "x"}
    assert numbers(row) == {"accuracy": 0.5, "n": 2.0}


def test_parameters_are_flat_with_lists_and_null_as_json() -> None:
    config = {"a": {"b": {"c": 1}, "d": [1, {"e": None}]}, "f": None, "g": True, "h": {}}
    flat = {"a.b.c": 1, "a.d": '[1, {"e": null}]', "f": "null", "g": True}
    assert parameters(config) == flat


def test_a_folder_has_one_run_id_however_it_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_id(Path("a")) == run_id(tmp_path / "b/../a") != run_id(tmp_path / "b")


def test_the_end_of_a_run_is_read_from_the_exception_that_passes() -> None:
    found = [ending()]
    for error in (KeyboardInterrupt, ValueError):
        try:
            try:
                raise error
            finally:
                found.append(ending())
        except BaseException as raised:
            assert type(raised) is error  # noqa: PT017  what is tested is `ending` above
    assert found == ["done", "interrupted", "failed"]


def test_no_tracker_is_the_default_and_writes_nothing(config, tmp_path) -> None:
    record = config().tracker.open({}, tmp_path)
    record.start(0)
    record.round({"round": 1})
    record.stop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(set(options("tracker")) - {"none"}))
def test_a_missing_package_is_one_line_with_its_extra(name: str, monkeypatch) -> None:
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError) as caught:
        check(composed([f"tracker={name}"]))
    message = str(caught.value)
    assert message.startswith(f"tracker: {name} needs a package that is not installed")
    assert message.endswith(f"pip install 'fedtsd[{name}]'")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracker=tensorbord", "tracker: 'tensorbord' is unknown; did you mean tensorboard?"),
        ("tracker.fodler=x", "key 'tracker.fodler' is unknown"),
        ("tracker.folder=3", "tracker.folder: must be text, got 3"),
        ("tracker.experiment=' '", "tracker.experiment: must not be empty, got ' '"),
    ],
)
def test_wrong_settings_are_one_line(override: str, message: str) -> None:
    overrides = ["tracker=mlflow", override]
    with pytest.raises(ConfigError) as caught:
        check(composed(overrides))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_project_name_that_wandb_refuses_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.project: must be text without any of"):
        check(composed(["tracker=wandb", "tracker.project=a/b"]))
