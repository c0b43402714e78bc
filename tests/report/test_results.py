import json
import math
import shutil
from pathlib import Path

import pytest
import yaml

from fedtsd.errors import RunFolderError
from fedtsd.report.results import Results
from tests.report.runs import RunBuilder, write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"), seeds=(0, 1), alphas=(1.0, 0.1))


def test_one_row_per_run_with_the_numbers_of_its_summary(sweep: Path) -> None:
    results = Results.read([sweep])
    table = results.table
    assert len(table) == 3 * 2 * 2
    assert results.methods == ["local", "fedavg", "fedtsdp"]  # by family
    assert results.labels["fedtsdp"] == "FedTSDP"
    assert results.settings == ["Dirichlet α = 1", "Dirichlet α = 0.1"]
    assert results.seeds == [0, 1]
    row = table.query("method == 'fedavg' and alpha == 0.1 and seed == 1").iloc[0]
    summary = json.loads((Path(row["folder"]) / "summary.json").read_text())
    assert row["score"] == summary["last"]["accuracy_mean"]
    assert row["bytes_up"] == summary["bytes_up"]


def test_clients_have_the_accuracy_of_the_round_of_the_rule(sweep: Path) -> None:
    results = Results.read([sweep])
    clients = results.clients
    assert len(clients) == 12 * 20
    means = clients.groupby(["method", "setting", "seed"])["score"].mean()
    table = results.table.set_index(["method", "setting", "seed"])["score"]
    assert (means - table).abs().max() < 1e-9
    assert clients["num_train"].min() > 0
    assert set(clients.query("method == 'local'")["personal_layers"]) == {5}


def test_a_single_run_is_a_result(sweep: Path) -> None:
    results = Results.read([sweep / "fedavg-1.0-0"])
    assert len(results.runs) == 1
    assert results.runs[0].alpha == 1.0


def test_iid_counts_as_infinite_alpha_and_other_partitions_have_none(tmp_path: Path) -> None:
    RunBuilder(alpha=None, rounds=2).write(tmp_path / "iid")
    two = {"_target_": "fedtsd.data.partition.Pathological", "classes_per_client": 2}
    RunBuilder(alpha=None, rounds=2, changes={"partition": two}).write(tmp_path / "other")
    runs = {run.setting: run for run in Results.read([tmp_path]).runs}
    assert runs["IID"].alpha == math.inf
    assert math.isnan(runs["2 classes per client"].alpha)


def test_ablations_are_methods_of_their_own_and_settings_name_what_differs(tmp_path: Path) -> None:
    for name, changes in {
        "both": {"clustering": {"stage2": True, "stage1": True}},
        "one": {"clustering": {"stage2": False, "stage1": True}},
        "large": {"clustering": {"stage2": True, "stage1": True}, "cohort": {"size": 5}},
    }.items():
        RunBuilder(rounds=2, changes=changes).write(tmp_path / name)
    results = Results.read([tmp_path])
    assert set(results.methods) == {"fedtsdp stage2=true", "fedtsdp stage2=false"}
    assert results.labels["fedtsdp stage2=false"] == "FedTSDP, stage2=false"
    assert set(results.settings) == {"Dirichlet α = 0.1", "Dirichlet α = 0.1, cohort.size=5"}


def test_another_policy_is_named_once(tmp_path: Path) -> None:
    one = {"clustering": {"_target_": "fedtsd.clustering.one.OneCluster"}}
    two = {"clustering": {"_target_": "fedtsd.clustering.two_stage.TwoStage", "stage1": True}}
    RunBuilder(rounds=2, changes=one).write(tmp_path / "one")
    RunBuilder(rounds=2, changes=two).write(tmp_path / "two")
    assert set(Results.read([tmp_path]).methods) == {
        "fedtsdp clustering=OneCluster",
        "fedtsdp clustering=TwoStage",
    }


def test_what_makes_no_difference_makes_no_name(tmp_path: Path) -> None:
    for i, engine in enumerate(["sequential", "parallel"]):
        changes = {"engine": {"_target_": engine}, "evaluation": {"local_run": f"x{i}"}}
        RunBuilder(rounds=2, seed=i, changes=changes).write(tmp_path / engine)
    results = Results.read([tmp_path])
    assert results.methods == ["fedtsdp"]
    assert len(results.settings) == 1


def test_a_run_held_twice_counts_once(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "local-1.0-0", tmp_path / "again")
    assert len(Results.read([sweep, tmp_path]).runs) == 12


def test_missing_and_failed_cells_are_holes(tmp_path: Path) -> None:
    write_sweep(tmp_path, methods=("fedavg",), alphas=(1.0,), seeds=(0, 1))
    status = {"state": "failed", "error": "ProtocolError: NaN", "traceback": "..."}
    (tmp_path / "fedavg-1.0-1/status.json").write_text(json.dumps(status))
    cells = [{"folder": f"fedavg-1.0-{seed}", "overrides": [f"seed={seed}"]} for seed in (0, 1, 2)]
    (tmp_path / "sweep.json").write_text(json.dumps({"cells": cells}))
    results = Results.read([tmp_path])
    assert [run.seed for run in results.runs] == [0]
    failed, missing = results.holes
    assert (failed.state, failed.error, failed.overrides) == (
        "failed",
        "ProtocolError: NaN",
        ("seed=1",),
    )
    assert (missing.state, missing.overrides) == ("missing", ("seed=2",))


def test_wrong_folders_and_rules_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="nowhere: no such folder"):
        Results.read([tmp_path / "nowhere"])
    with pytest.raises(RunFolderError, match="no run here"):
        Results.read([tmp_path])
    with pytest.raises(RunFolderError, match="rule: must be one of last, best_by_validation"):
        Results.read([tmp_path], "best")


def test_a_rule_without_a_result_is_refused(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "local-1.0-0", tmp_path / "run")
    path = tmp_path / "run/summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "best_by_validation": None}))
    with pytest.raises(RunFolderError, match="has no result by the rule best round by validation"):
        _ = Results.read([tmp_path], "best_by_validation").table


def test_configs_are_read_as_they_stand(sweep: Path) -> None:
    run = Results.read([sweep]).runs[0]
    assert run.config == yaml.safe_load((run.folder / "config.yaml").read_text())
