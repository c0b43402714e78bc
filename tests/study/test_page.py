"""The page and its CSV, from made-up folders alone."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fedtsd.errors import ConfigError
from fedtsd.study.page import write_page
from fedtsd.study.standing import roles_of
from tests.study.made_up import write_final

SCORES = {
    ("ours", "iid"): [[0.80, 0.84], [0.82, 0.86]],
    ("ours", "dir01"): [[0.90, 0.94], [0.92, 0.96]],
    ("fedavg", "iid"): [[0.79, 0.83], [0.81, 0.85]],
    ("fedavg", "dir01"): [[0.60, 0.64], [0.62, 0.66]],
    ("local", "iid"): [[0.70, 0.70], [0.71, 0.71]],
    ("local", "dir01"): [[0.91, 0.94], [0.93, 0.96]],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_final(tmp_path / "run", SCORES)
    chosen = {"chosen": ["training.lr=0.1"], "points": []}
    chosen["points"] = [
        {"overrides": ["training.lr=0.1"], "validation_accuracy": 0.6123},
        {"overrides": ["training.lr=9"], "validation_accuracy": None},
    ]
    told = {"rule": "by validation", "seed": 100, "settings": ["iid"], "methods": {}}
    told["methods"] = {"fedavg": chosen}
    (folder / "choice.yaml").write_text(yaml.safe_dump(told))
    return folder


def written(folder: Path, target: Path, reference: str = "ours") -> tuple[str, pd.DataFrame]:
    page, csv, _ = write_page(folder, target, "toy", reference)
    return page.read_text(), pd.read_csv(csv)


def row(text: str, heading: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`, in the section of a heading."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    (line,) = [one for one in section.splitlines() if re.match(rf"\| {first} \|", one)]
    return [word.strip() for word in line.strip("|").split("|")]


def test_the_head_says_how_it_was_made(folder, tmp_path) -> None:
    text, _ = written(folder, tmp_path)
    assert text.startswith("# Benchmark: toy\n")
    assert "python scripts/benchmark.py --part toy --seeds 0,1 --reference ours\n" in text
    assert "12 runs, 0 without a result" in text
    assert "- torch: 2.15.0" in text
    assert (
        "| FEDAVG | `training.lr=0.1` | `training.lr=0.1`: 0.6123; `training.lr=9`: failed |"
        in text
    )


def test_the_command_names_the_methods_unless_all_are_there(folder, tmp_path) -> None:
    there = list(roles_of(folder))
    some, _, _ = write_page(folder, tmp_path / "some", "toy", "ours", [*there, "ditto"])
    command = f"--part toy --methods {','.join(there)} --seeds 0,1 --reference ours\n"
    assert command in some.read_text()
    every, _, _ = write_page(folder, tmp_path / "all", "toy", "ours", there)
    assert "--part toy --seeds 0,1 --reference ours\n" in every.read_text()


def test_tables_have_means_spread_and_average(folder, tmp_path) -> None:
    text, _ = written(folder, tmp_path)
    # Seeds 82 and 84, 92 and 94: the sample standard deviation of two is their distance / sqrt 2.
    assert row(text, "Last round", "OURS")[1:4] == [
        "**83.0 ± 1.4**",
        "<ins>93.0 ± 1.4</ins>",
        "**88.0**",
    ]
    assert row(text, "Worst tenth of the clients", "FEDAVG")[1:3] == [
        "<ins>80.0 ± 1.4</ins>",
        "61.0 ± 1.4",
    ]
    assert "Best round by validation" in text


def test_the_verdict_is_what_the_numbers_say(folder, tmp_path) -> None:
    text, _ = written(folder, tmp_path)
    # dir01: 93 against local's 93.5, both seeds 0.5 behind: no spread, so behind.
    # Worst tenth: 91 against local's 92, and 91 - 61 over FedAvg.
    behind = "by more than one standard error behind the best baseline in"
    close = "less than 2 points ahead, averaged over settings, of none."
    assert f"- Mean over clients: {behind} dir01; {close}" in text
    assert f"- Worst tenth: {behind} dir01; {close}" in text
    assert "against training alone: 0 of 8 (0.0%; 2.3% by chance if none did)." in text
    assert "- Goal missed." in text
    assert row(text, "Verdict", r"dir01 \(JS\W0.10\)")[1:] == [
        "LOCAL",
        "93.5",
        "93.0",
        "−0.5 ± 0.0",
    ]
    assert row(text, "Verdict", "LOCAL")[1:] == ["yes", "2", "+6.0 ± 0.2"]


def test_the_goal_is_met_only_if_the_worst_tenth_and_single_clients_fare_well(tmp_path) -> None:
    met = SCORES | {("local", "dir01"): [[0.80, 0.80], [0.80, 0.80]]}
    text = write_page(write_final(tmp_path / "a", met), tmp_path, "toy", "ours")[0].read_text()
    assert "- Goal met." in text
    # The same mean with one client at 78 %: the worst tenth is behind, nobody beyond noise.
    uneven = met | {("ours", "dir01"): [[0.78, 1.0], [0.78, 1.0]]}
    text = write_page(write_final(tmp_path / "b", uneven), tmp_path, "toy", "ours")[0].read_text()
    assert "Worst tenth: by more than one standard error behind the best baseline in dir01" in text
    assert "0 of 8 (0.0%" in text
    assert "- Goal missed." in text
    # One client of eight loses ten points, and local's worst tenth is lower still.
    unfair = met | {("local", "dir01"): [[0.96, 0.70], [0.80, 0.80]]}
    unfair |= {("ours", "dir01"): [[0.86, 0.94], [0.92, 0.96]]}
    text = write_page(write_final(tmp_path / "c", unfair), tmp_path, "toy", "ours")[0].read_text()
    assert text.count("best baseline in none; ") == 2
    assert "1 of 8 (12.5%" in text
    assert "- Goal missed." in text


def test_losers_and_pairs(folder, tmp_path) -> None:
    text, _ = written(folder, tmp_path)
    assert row(text, "Who loses against training alone", "FEDAVG")[1:] == [
        "**0 %**", "<ins>100 % (−30.5)</ins>", "<ins>50 % (−30.5)</ins>",
    ]  # fmt: skip
    pairs = row(text, "Pairs", "FEDAVG")
    # 1, 1, 30, 30: mean 15.5, standard error 16.74 / 2.
    assert pairs[1:4] == ["4", "+15.5", "8.4"]
    assert pairs[5:7] == ["4/0/0", "+1.00"]


def test_the_csv_has_a_row_per_run_unrounded(folder, tmp_path) -> None:
    _, table = written(folder, tmp_path)
    assert len(table) == 12
    one = table.set_index(["method", "setting", "seed"]).loc[("ours", "dir01", 1)]
    assert one["accuracy"] == pytest.approx(0.94)
    assert one["best_by_validation_accuracy"] == pytest.approx(0.94)
    assert (one["losers_share"], one["folder"]) == (0.0, "ours-ours-dir01-1")


def test_the_same_folders_give_the_same_bytes_wherever_they_lie(folder, tmp_path) -> None:
    first = [p.read_bytes() for p in write_page(folder, tmp_path / "a", "toy", "ours")]
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert [p.read_bytes() for p in write_page(moved, tmp_path / "b", "toy", "ours")] == first


def test_holes_are_counted_and_the_verdict_says_it_is_unsure(tmp_path) -> None:
    folder = write_final(tmp_path / "run", SCORES | {("ours", "dir01"): [[0.99, 0.99], []]})
    text = write_page(folder, tmp_path, "toy", "ours")[0].read_text()
    assert "11 runs, 1 without a result" in text
    assert "Goal met, as far as known: 1 cells (setting, seed) are incomplete." in text


def test_without_baselines_there_is_no_verdict(tmp_path) -> None:
    folder = write_final(tmp_path / "run", {("ours", "iid"): [[0.8], [0.9]]})
    text = write_page(folder, tmp_path, "toy", "ours")[0].read_text()
    assert "Verdict" not in text
    assert "Last round" in text


def test_an_unknown_reference_is_one_line(folder, tmp_path) -> None:
    with pytest.raises(ConfigError, match="reference 'fedag' is unknown; did you mean fedavg"):
        write_page(folder, tmp_path, "toy", "fedag")
