import json

import pytest

from fedtsd.errors import RunFolderError
from fedtsd.run_folder import TABLES, RunFolder

ROW = {"round": 1, "client": 0, "cluster": 0, "personal_layers": 0}


def test_tables_start_with_their_header(tmp_path) -> None:
    RunFolder.create(tmp_path / "run", "seed: 0\n")
    for table, columns in TABLES.items():
        assert (tmp_path / "run" / f"{table}.csv").read_text() == ",".join(columns) + "\n"


def test_cells_keep_every_bit(tmp_path) -> None:
    folder = RunFolder.create(tmp_path, "")
    row = dict.fromkeys(TABLES["rounds"]) | {
        "round": 1,
        "accuracy_mean": 0.1 + 0.2,
        "hopkins": None,
    }
    folder.append("rounds", [row])
    line = (tmp_path / "rounds.csv").read_text().splitlines()[1]
    assert float(line.split(",")[1]) == 0.1 + 0.2
    assert line.split(",")[7] == ""


def test_rewind_drops_later_rounds_and_half_lines(tmp_path) -> None:
    folder = RunFolder.create(tmp_path, "")
    folder.append("rounds", [{"round": r} for r in (1, 2, 3)])
    folder.append("assignments", [ROW, ROW | {"round": 2}, ROW | {"round": 3}])
    with (tmp_path / "assignments.csv").open("a") as file:
        file.write("2,1,0")
    folder.rewind(2)
    assert (tmp_path / "assignments.csv").read_text().splitlines()[1:] == ["1,0,0,0", "2,0,0,0"]
    folder.rewind(-1)
    assert (tmp_path / "assignments.csv").read_text() == "round,client,cluster,personal_layers\n"


def test_a_run_is_never_overwritten(tmp_path) -> None:
    RunFolder.create(tmp_path, "")
    with pytest.raises(RunFolderError, match="holds a run already"):
        RunFolder.create(tmp_path, "")


def test_only_unfinished_runs_are_reopened(tmp_path) -> None:
    with pytest.raises(RunFolderError, match=r"config\.yaml is missing"):
        RunFolder.reopen(tmp_path)
    folder = RunFolder.create(tmp_path, "")
    RunFolder.reopen(tmp_path)
    folder.set_status("done")
    with pytest.raises(RunFolderError, match="the run is finished"):
        RunFolder.reopen(tmp_path)


def test_status_of_a_failure_has_the_traceback(tmp_path) -> None:
    folder = RunFolder.create(tmp_path, "")
    try:
        raise ZeroDivisionError("a test")
    except ZeroDivisionError as error:
        folder.set_failed(error)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["error"] == "ZeroDivisionError: a test"
    assert "test_run_folder.py" in status["traceback"]
    assert "started" in status


def test_two_checkpoints_are_kept_and_the_newest_is_read(tmp_path) -> None:
    folder = RunFolder.create(tmp_path, "")
    assert folder.load_checkpoint() is None
    for r in (5, 10, 15):
        folder.save_checkpoint(r, {"round": r})
    assert folder.load_checkpoint() == {"round": 15}
    names = [p.name for p in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["round-000010.safetensors", "round-000015.safetensors"]


def test_a_damaged_checkpoint_is_passed_over_and_the_log_names_it(tmp_path, caplog) -> None:
    folder = RunFolder.create(tmp_path, "")
    for r in (5, 10):
        folder.save_checkpoint(r, {"round": r})
    newest = tmp_path / "checkpoints/round-000010.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with caplog.at_level("WARNING"):
        assert folder.load_checkpoint() == {"round": 5}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(newest) in record.message


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(tmp_path) -> None:
    folder = RunFolder.create(tmp_path, "")
    for r in (5, 10):
        folder.save_checkpoint(r, {"round": r})
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunFolderError, match="none of 2 checkpoints can be read"):
        folder.load_checkpoint()


def test_half_a_round_is_cut_off(tmp_path) -> None:
    folder = RunFolder.create(tmp_path, "")
    for r in (1, 2):
        folder.append("assignments", [ROW | {"round": r}])
        folder.append("rounds", [{"round": r}])
    whole = (tmp_path / "assignments.csv").read_bytes()
    folder.append("assignments", [ROW | {"round": 3}])
    with (tmp_path / "assignments.csv").open("a") as file:
        file.write("3,1")
    folder.cut()
    assert (tmp_path / "assignments.csv").read_bytes() == whole
    folder.append("assignments", [ROW | {"round": 3}])
    assert (tmp_path / "assignments.csv").read_bytes() == whole + b"3,0,0,0\n"


def test_tables_that_lack_rounds_of_the_checkpoint_are_an_error(tmp_path) -> None:
    folder = RunFolder.create(tmp_path, "")
    folder.append("rounds", [{"round": 1}])
    with pytest.raises(RunFolderError, match=r"rounds\.csv: lacks rounds of the 2"):
        folder.rewind(2)


@pytest.mark.parametrize("content", ["", "{", "\0\0"])
def test_a_damaged_status_is_one_line(content: str, tmp_path) -> None:
    RunFolder.create(tmp_path, "seed: 0\n")
    (tmp_path / "status.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"status\.json: is damaged"):
        RunFolder.reopen(tmp_path)


@pytest.mark.parametrize("content", ["", "a: [", "text", "a: \0"])
def test_a_damaged_config_is_one_line(content: str, tmp_path) -> None:
    RunFolder.create(tmp_path, content)
    with pytest.raises(RunFolderError, match=r"config\.yaml: is damaged: [^\n]+$"):
        RunFolder(tmp_path).config()


def test_a_run_that_was_killed_before_it_had_a_config_is_begun_again(tmp_path) -> None:
    RunFolder.create(tmp_path, "seed: 0\n")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(RunFolderError, match=r"config\.yaml is missing"):
        RunFolder.reopen(tmp_path)
    RunFolder.create(tmp_path, "seed: 1\n")
    assert RunFolder.reopen(tmp_path).config() == {"seed": 1}


def test_environment_names_versions(tmp_path) -> None:
    RunFolder.create(tmp_path, "")
    found = json.loads((tmp_path / "environment.json").read_text())
    assert {"torch", "torchvision", "hydra-core"} <= found["packages"].keys()
    assert found["python"].startswith("3.")
