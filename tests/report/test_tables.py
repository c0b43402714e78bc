import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedtsd.errors import RunFolderError
from fedtsd.report.tables import RunTables

Copy = Callable[[str], Path]


def test_clients_are_ordered_by_final_cluster_then_id(tables: dict[str, RunTables]) -> None:
    run = tables["typical"]
    last = run.assignments[run.assignments["round"] == 20].set_index("client")["cluster"]
    assert sorted(run.order) == list(range(20))
    keys = [(int(last[client]), client) for client in run.order]
    assert keys == sorted(keys)
    assert list(run.final_clusters) == [cluster for cluster, _ in keys]


def test_a_client_that_the_last_round_lacks_keeps_its_cluster(copy: Copy) -> None:
    folder = copy("typical")
    rows = pd.read_csv(folder / "assignments.csv")
    rows[~((rows["round"] == 20) & (rows["client"] == 7))].to_csv(
        folder / "assignments.csv", index=False
    )
    whole = rows[rows["round"] == 20].set_index("client")["cluster"]
    assert RunTables.read(folder).final_clusters[7] == whole[7]


def test_training_counts_follow_the_order_and_leave_out_other_splits(copy: Copy) -> None:
    folder = copy("ten")
    (folder / "partition.csv").write_text(
        "client,split,label,count\n3,train,1,5\n3,test,1,99\n0,train,9,2\n3,train,0,4\n"
    )
    run = RunTables.read(folder)
    counts = run.train_counts
    assert counts.shape == (10, 10)
    assert counts[run.order.index(3)].tolist() == [4, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    assert counts[run.order.index(0), 9] == 2
    assert counts.sum() == 11


def test_classes_without_a_name_are_numbered(copy: Copy) -> None:
    folder = copy("ten")
    (folder / "classes.json").write_text(json.dumps(["cat", "dog"]))
    assert RunTables.read(folder).class_names[:4] == ("cat", "dog", "2", "3")
    (folder / "classes.json").unlink()
    assert RunTables.read(folder).class_names[1] == "1"


def test_dotted_options(tables: dict[str, RunTables]) -> None:
    assert tables["typical"].option("partition.alpha") == 0.1
    assert tables["typical"].option("partition.alpha.deeper", 3) == 3
    assert tables["typical"].option("clustering.hopkins_threshold") is None


def test_optional_files_may_be_absent(copy: Copy) -> None:
    folder = copy("typical")
    optional = ("clustering.csv", "traffic.csv", "exchanged.csv", "similarity.npz", "classes.json")
    for name in (*optional, "summary.json", "model.json", "groups.json"):
        (folder / name).unlink()
    run = RunTables.read(folder)
    assert run.clustering.empty
    assert not run.similarity
    assert run.summary == {}
    assert (len(run.traffic), len(run.exchanged), run.model, run.groups) == (0, 0, (), None)


@pytest.mark.parametrize(
    "name", ["rounds.csv", "clients.csv", "partition.csv", "assignments.csv", "config.yaml"]
)
def test_a_missing_file_is_named(copy: Copy, name: str) -> None:
    folder = copy("ten")
    (folder / name).unlink()
    with pytest.raises(RunFolderError, match=f"{name} is missing"):
        RunTables.read(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="nowhere: no such run folder"):
        RunTables.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("rounds.csv", b"", "No columns"),
        ("rounds.csv", b"round,accuracy_mean\n1,0.5\n", "no column accuracy_std, accuracy_worst10"),
        ("rounds.csv", b"round,accuracy_mean\n1,high\n", "high"),
        ("rounds.csv", b"\xff\xfe\x00", "decode"),
        ("assignments.csv", b"round,client,cluster\n0,0\n", "NA"),
        ("assignments.csv", b"round,client,cluster\n", "no rows"),
        ("assignments.csv", b"round,client,cluster\n0,0,0\n", "no cluster for client 1"),
        ("partition.csv", b"client,split,label,count\n0,train,-1,3\n", "label -1 is below 0"),
        ("clustering.csv", b"round\n1\n", "no column stage"),
        ("config.yaml", b"a: [1\n", "expected"),
        ("config.yaml", b"- 1\n", "expected a mapping, found list"),
        ("summary.json", b"{", "Expecting"),
        ("classes.json", b"{}", "expected a list, found dict"),
        ("similarity.npz", b"PK", "file"),
        ("similarity.npz", b"", "No data"),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    copy: Copy, name: str, content: bytes, why: str
) -> None:
    folder = copy("ten")
    (folder / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=f"{name} is broken: .*{why}") as caught:
        RunTables.read(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("matrices", "why"),
    [
        ({"outputs": np.zeros((10, 10))}, "no matrix labels"),
        ({"labels": np.zeros((9, 9))}, r"labels has shape \(9, 9\), expected \(10, 10\)"),
        ({"labels": np.array([{}])}, "pickle|Object"),
    ],
)
def test_similarity_is_checked(copy: Copy, matrices: dict[str, np.ndarray], why: str) -> None:
    folder = copy("ten")
    np.savez(folder / "similarity.npz", **matrices)
    with pytest.raises(RunFolderError, match=f"similarity.npz is broken: .*({why})"):
        RunTables.read(folder)


def test_clients_of_one_cluster_are_ordered_by_planted_group_then_id(
    tables: dict[str, RunTables],
) -> None:
    run = replace(
        tables["ten"],
        assignments=tables["ten"].assignments.assign(cluster=0),
        groups=(1, 0, 1, 0, 1, 0, 1, 0, 1, 0),
    )
    assert run.order == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]


def test_sites_have_names_and_clients_numbers(copy: Copy) -> None:
    folder = copy("ten")
    assert RunTables.read(folder).client_names[3] == "3"
    names = [f"site {i}" for i in range(10)]
    (folder / "sites.json").write_text(json.dumps(names))
    run = RunTables.read(folder)
    assert run.sites == tuple(names)
    assert [run.client_names[client] for client in range(10)] == names
    (folder / "sites.json").write_text(json.dumps(names[:4]))
    with pytest.raises(RunFolderError, match=r"sites\.json is broken: has 4 names for 10 clients"):
        RunTables.read(folder)


def test_what_clients_hold_after_a_drift_is_read_beside_the_start(copy: Copy) -> None:
    folder = copy("ten")
    assert not RunTables.read(folder).later_counts.any()
    (folder / "drift.csv").write_text("client,split,label,count\n3,train,1,5\n3,test,1,99\n")
    run = RunTables.read(folder)
    assert run.later_counts[run.order.index(3), 1] == 5
    assert run.later_counts.sum() == 5
