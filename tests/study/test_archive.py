"""What is packed of a benchmark makes the same tables elsewhere."""

import tarfile
from pathlib import Path

import pytest

from fedtsd.cell import write_plan
from fedtsd.errors import RunFolderError
from fedtsd.study.archive import OF_A_RUN, pack, unpack
from fedtsd.study.choice import FILE
from fedtsd.study.page import write_page
from fedtsd.study.sitting import read_cells
from tests.study.made_up import cell, write_final, write_run

SCORES = {
    ("local", "iid"): [[0.5, 0.6], [0.6, 0.7]],
    ("ours", "iid"): [[0.7, 0.8], [0.7, 0.9]],
    ("fedavg", "iid"): [[0.6, 0.7], []],
}


def benchmark(place: Path) -> Path:
    folder = write_final(place / "run", SCORES)
    (folder / FILE).write_text("methods: {}\nsettings: []\nseed: 100\nrule: none\n")
    return folder


def test_the_tables_elsewhere_are_the_same(tmp_path) -> None:
    folder = benchmark(tmp_path / "here")
    (read_cells(folder)[0].folder / "clients.csv").write_text("not needed")
    archive = pack([folder], tmp_path / "toy.tar.xz")
    assert unpack(archive, tmp_path / "there") == 5
    (there,) = (tmp_path / "there").iterdir()
    assert {file.name for file in there.rglob("*") if file.is_file()} == {
        "sweep.json", FILE, *OF_A_RUN,
    }  # fmt: skip
    first, second = (
        [file.read_bytes() for file in write_page(one, tmp_path / str(number), "toy", "ours")]
        for number, one in enumerate((folder, there))
    )
    assert first == second


def test_the_same_runs_pack_to_the_same_bytes(tmp_path) -> None:
    folder = benchmark(tmp_path)
    first = pack([folder], tmp_path / "a").read_bytes()
    for one in read_cells(folder):
        for file in one.folder.glob("*"):
            file.touch()
    assert pack([folder], tmp_path / "b").read_bytes() == first


def test_what_never_ended_is_planned_elsewhere_and_not_there(tmp_path) -> None:
    folder = benchmark(tmp_path / "here")
    running = cell(folder, method="fedper", role="baseline", setting="iid", seed=0)
    failed = cell(folder, method="fedper", role="baseline", setting="iid", seed=1)
    write_run(running, [0.5], state="interrupted")
    write_run(failed, [0.5], state="failed")
    write_plan(folder, [*read_cells(folder), running, failed])
    unpack(pack([folder], tmp_path / "toy.tar.xz"), tmp_path / "there")
    there = {one.folder.name: one.state for one in read_cells(tmp_path / "there" / "run")}
    assert len(there) == 8
    assert there[running.folder.name] == "missing"
    assert not (tmp_path / "there" / "run" / running.folder.name).exists()
    assert there[failed.folder.name] == "failed"


def test_what_is_there_wins(tmp_path) -> None:
    archive = pack([benchmark(tmp_path / "here")], tmp_path / "toy.tar.xz")
    there = tmp_path / "there" / "run"
    begun = cell(there, method="ours", role="ours", setting="iid", seed=0)
    write_run(begun, [0.1], state="interrupted")
    other = cell(there, method="ours", role="bound", setting="iid", seed=1)
    newer = cell(there, ["lr=1"], method="local", role="baseline", setting="iid", seed=0)
    write_plan(there, [newer, other])
    (there / FILE).write_text("mine")
    assert unpack(archive, tmp_path / "there") == 4
    assert begun.state == "interrupted"
    assert (there / FILE).read_text() == "mine"
    plan = read_cells(there)
    assert plan[:2] == [newer, other]
    assert len(plan) == 7  # six that were packed; one of them is known here with other overrides
    assert unpack(archive, tmp_path / "there") == 0
    assert read_cells(there) == plan


@pytest.mark.parametrize("cut", [slice(0, 0), slice(0, 200), slice(40, None)])
def test_a_damaged_file_is_named_and_nothing_is_written(tmp_path, cut: slice) -> None:
    archive = pack([benchmark(tmp_path / "here")], tmp_path / "toy.tar.xz")
    archive.write_bytes(archive.read_bytes()[cut])
    with pytest.raises(RunFolderError, match=r"toy\.tar\.xz: not an archive of a benchmark"):
        unpack(archive, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_names_in_the_file_lead_nowhere_else(tmp_path) -> None:
    folder = benchmark(tmp_path / "here")
    outside = cell(folder, method="x", role="ours", setting="iid", seed=0)
    outside = type(outside)(folder / "../../outside", (), outside.values, 20)
    write_run(outside, [0.5])
    write_plan(folder, [*read_cells(folder), outside])
    archive = pack([folder], tmp_path / "toy.tar.xz")
    with tarfile.open(archive, "r:xz") as tar:
        assert not any(".." in name for name in tar.getnames())
    unpack(archive, tmp_path / "a" / "b" / "there")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"there"}
