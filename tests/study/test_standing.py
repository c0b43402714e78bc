"""Verdicts and losers, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from fedtsd.errors import RunFolderError
from fedtsd.study.standing import (
    against_best,
    against_each,
    environments,
    losers,
    missing_pairs,
    read_results,
    roles_of,
    verdict,
)
from tests.study.made_up import cell, write_final, write_run


def cells(**columns: list[float]) -> pd.DataFrame:
    """Cells of two settings with two seeds each."""
    index = pd.MultiIndex.from_product([["iid", "dir01"], [0, 1]], names=["setting", "seed"])
    return pd.DataFrame(columns, index=index, dtype=float)


TABLE = cells(
    ours=[80.0, 84.0, 90.0, 94.0],
    fedavg=[79.0, 81.0, 60.0, 64.0],
    local=[70.0, 70.0, 91.0, 94.0],
)


def test_the_best_baseline_of_each_setting_with_a_standard_error() -> None:
    best = against_best(TABLE, "ours", ["fedavg", "local"])
    assert list(best["best"]) == ["fedavg", "local"]
    assert list(best["baseline"]) == [80.0, 92.5]
    assert list(best["reference"]) == [82.0, 92.0]
    # iid: pairs 1 and 3; dir01: pairs -1 and 0. Standard error of two: half their distance.
    assert list(best["difference"]) == [2.0, -0.5]
    assert list(best["error"]) == pytest.approx([1.0, 0.5])


def test_against_each_baseline_averaged_over_settings() -> None:
    each = against_each(TABLE, "ours", ["fedavg", "local"])
    # fedavg: 2 and 30; local: 12 and -0.5. Errors: fedavg 1 and 0; local 2 and 0.5.
    assert list(each["difference"]) == [16.0, 5.75]
    assert list(each["error"]) == pytest.approx([0.5, math.hypot(2.0, 0.5) / 2])
    assert list(each["settings"]) == [2, 2]


def test_one_standard_error_behind_is_near_enough_more_is_not() -> None:
    assert verdict(TABLE, "ours", ["fedavg", "local"]) == ([], [])
    worse = TABLE.assign(local=[70.0, 70.0, 91.5, 94.5])  # now -1.5 and -0.5: mean -1, error 0.5
    assert verdict(worse, "ours", ["fedavg", "local"]) == (["dir01"], [])


@pytest.mark.parametrize(("lead", "close"), [(2.0, []), (1.9, ["fedavg"])])
def test_the_lead_is_two_points_averaged_over_settings(lead: float, close: list[str]) -> None:
    table = cells(ours=[80.0] * 4, fedavg=[80 - lead + 1] * 2 + [80 - lead - 1] * 2)
    assert verdict(table, "ours", ["fedavg"]) == ([], close)


def test_with_one_seed_there_is_no_error_to_hide_behind() -> None:
    one = TABLE.xs(0, level="seed", drop_level=False)
    best = against_best(one, "ours", ["fedavg", "local"])
    assert list(best["difference"]) == [1.0, -1.0]
    assert best["error"].isna().all()
    assert verdict(one, "ours", ["fedavg", "local"])[0] == ["dir01"]


def test_what_is_missing_makes_no_pair() -> None:
    table = TABLE.copy()
    table.loc[("dir01", 1), "local"] = np.nan
    table.loc[("iid", 0), "ours"] = np.nan
    assert missing_pairs(table, "ours", ["fedavg", "local"]) == 2
    best = against_best(table, "ours", ["fedavg", "local"])
    assert list(best["best"]) == ["fedavg", "fedavg"]  # local lacks a seed of dir01
    assert best.loc["iid", "difference"] == 3.0
    each = against_each(table, "ours", ["local"])
    assert each.loc["local", "difference"] == (14.0 - 1.0) / 2
    nobody = against_each(table.assign(local=np.nan), "ours", ["local"])
    assert nobody.loc["local", "settings"] == 0
    assert verdict(table.assign(local=np.nan), "ours", ["local"])[1] == ["local"]


def test_losers_lose_more_than_a_point_against_training_alone(tmp_path) -> None:
    folder = write_final(
        tmp_path,
        {
            ("local", "iid"): [[0.80, 0.80, 0.80, 0.80], [0.5] * 4],
            ("ours", "iid"): [[0.79, 0.78, 0.90, 0.76], [0.6] * 4],
            ("fedavg", "dir01"): [[0.1]],  # nobody alone beside it
        },
    )
    lost = losers(read_results(folder)).set_index(["method", "seed"])
    # Client 0 loses one point, not more; 1 and 3 lose 2 and 4.
    assert lost.loc[("ours", 0), "share"] == 0.5
    assert lost.loc[("ours", 0), "loss"] == pytest.approx(-3.0)
    assert (lost.loc[("ours", 1), "share"], lost.loc[("ours", 1), "loss"]) == (0.0, 0.0)
    assert len(lost) == 2


def test_a_loss_is_beyond_noise_from_two_standard_errors_on(tmp_path) -> None:
    # 200 test samples each. Two standard errors by hand: at 76 % 8.54 points, at 75.5 % 8.60, at
    # 99.25 % 1.73, at 99 % 1.99.
    alone, ours = [0.80, 0.80, 1.00, 1.00, 0.5], [0.72, 0.71, 0.985, 0.98, 0.9]
    folder = write_final(tmp_path, {("local", "iid"): [alone], ("ours", "iid"): [ours]})
    (lost,) = losers(read_results(folder)).to_dict("records")
    assert (lost["beyond_noise"], lost["clients"], lost["share"]) == (2, 5, 0.8)


def test_runs_have_the_names_of_the_plan_and_holes_are_told(tmp_path) -> None:
    folder = write_final(
        tmp_path, {("ours", "iid"): [[0.8], []], ("fedavg", "iid"): [[0.7], [0.6]]}
    )
    results = read_results(folder)
    assert [(run.method, run.setting, run.seed) for run in results.runs] == [
        ("fedavg", "iid", 0), ("fedavg", "iid", 1), ("ours", "iid", 0),
    ]  # fmt: skip
    assert [hole.state for hole in results.holes] == ["missing"]
    assert roles_of(folder) == {"ours": "ours", "fedavg": "baseline"}
    assert environments(results) == {
        "fedtsd": ["0.1.0"], "python": ["3.11.7"], "torch": ["2.15.0"], "numpy": ["2.1"],
    }  # fmt: skip


def test_a_variant_is_named_by_the_plan(tmp_path) -> None:
    folder = write_final(tmp_path, {("ours", "iid"): [[0.8]]})
    (one,) = folder.glob("ours-*")
    text = (one / "sweep.json", folder / "sweep.json")[1].read_text()
    (folder / "sweep.json").write_text(text.replace('"method": "ours"', '"method": "without_x"'))
    (run,) = read_results(folder).runs
    assert (run.method, run.label, run.family) == ("without_x", "without x", "clustered")


def test_what_a_name_adds_to_its_method_is_added_to_the_label(tmp_path) -> None:
    folder = write_final(tmp_path, {("ours", "iid"): [[0.8]]})
    text = (folder / "sweep.json").read_text()
    (folder / "sweep.json").write_text(text.replace('"method": "ours"', '"method": "ours_plus"'))
    (run,) = read_results(folder).runs
    assert run.label == "OURS plus"


def test_folders_without_runs_are_one_line(tmp_path) -> None:
    with pytest.raises(RunFolderError, match=r"sweep\.json is missing"):
        read_results(tmp_path)
    write_final(tmp_path, {("ours", "iid"): [[]]})
    with pytest.raises(RunFolderError, match="no run has finished"):
        read_results(tmp_path)


def test_a_run_is_read_by_either_rule(tmp_path) -> None:
    from fedtsd.cell import write_plan

    one = cell(tmp_path, method="ours", role="ours", setting="iid", seed=0)
    write_plan(tmp_path, [write_run(one, [0.8, 0.6], best=0.9)])
    last, best = (read_results(tmp_path, rule) for rule in ("last", "best_by_validation"))
    assert list(last.table["score"]) == pytest.approx([0.7])
    assert list(best.table[["round", "score"]].iloc[0]) == [15, 0.9]
